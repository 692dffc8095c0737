"""The candidates that a report highlights: the front, its knee, the picked one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.candidate import Candidate
from dse.errors import RunError
from dse.results.candidate_records import BaselineRecord, TrialRecord
from dse.results.front import hypervolume, hypervolume_history, knee, maximised, non_dominated
from dse.results.records import RunRecords


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One candidate that plots highlight.

    Attributes:
        label: label in plots.
        candidate: the candidate.
        peak_bytes: its predicted peak memory.
        accuracy: on the validation part if it was trained at fidelity `full`, otherwise on the
            selection part at `short`.
    """

    label: str
    candidate: Candidate
    peak_bytes: int
    accuracy: float


def front_trials(records: RunRecords) -> tuple[TrialRecord, ...]:
    """Return the trials that are non-dominated in the study's objectives, smallest peak first."""
    trials = records.complete
    objectives = records.study.search.objectives
    mask = non_dominated(_values(trials, objectives), maximise=maximised(objectives))
    members = [trial for trial, member in zip(trials, mask, strict=True) if member]
    return tuple(sorted(members, key=lambda t: (t.peak_bytes, t.accuracy or 0.0, t.number)))


def attained(trials: tuple[TrialRecord, ...]) -> tuple[TrialRecord, ...]:
    """Return trials that are non-dominated in peak memory and accuracy, smallest peak first."""
    mask = non_dominated(_plane(trials), maximise=(False, True))
    members = [trial for trial, member in zip(trials, mask, strict=True) if member]
    return tuple(sorted(members, key=lambda trial: (trial.peak_bytes, trial.number)))


def knee_trial(records: RunRecords) -> TrialRecord | None:
    """Return the trial at the knee of the front of peak memory and accuracy; None without one."""
    trials = records.complete
    row = knee(_plane(trials), maximise=(False, True))
    return None if row is None else trials[row]


def shown_candidate(records: RunRecords, *, picked: Candidate | None) -> Shown | None:
    """Return the candidate to compare with the unpruned network: the picked one, or the knee.

    Without a knee it is the smallest member of the front; None if there is no front.

    Raises:
        RunError: if the picked candidate was never trained in this run.
    """
    if picked is not None:
        return _picked(records, picked)
    bend = knee_trial(records)
    if bend is not None:
        return _shown_trial(records, bend, label=f"knee of the front (trial {bend.number})")
    smallest = next(iter(front_trials(records)), None)
    if smallest is None:
        return None
    return _shown_trial(records, smallest, label=f"smallest of the front (trial {smallest.number})")


def hypervolume_shares(records: RunRecords) -> NDArray[np.float64]:
    """Return the hypervolume after each trial of any state, as a share of the reference box.

    The box reaches from the reference (chance accuracy, the unpruned network's costs) to the ideal
    (accuracy 1, zero cost), so a share of 1 can't be reached.

    Returns:
        Shares, (trials,).
    """
    objectives = records.study.search.objectives
    history = hypervolume_history(
        _scaled(records, records.complete),
        reference=_scaled_reference(objectives),
        maximise=maximised(objectives),
    )
    done = np.cumsum([trial.state == "complete" for trial in records.trials])
    return np.concatenate([[0.0], history])[done] if len(done) else history


def baseline_hypervolume(records: RunRecords) -> float | None:
    """Return the joint hypervolume of the baselines in the same unit; None if there are none.

    Baselines that fit no budget are left out, like the search's own candidates.
    """
    limit = max(records.study.search.budget_bytes)
    within = tuple(one for one in records.rivals if one.peak_bytes <= limit)
    if not records.baselines:
        return None
    objectives = records.study.search.objectives
    return hypervolume(
        _scaled(records, within),
        reference=_scaled_reference(objectives),
        maximise=maximised(objectives),
    )


def _picked(records: RunRecords, picked: Candidate) -> Shown:
    final = records.final_of(picked)
    if final is not None:
        return Shown(
            label=f"picked ({final.label})",
            candidate=picked,
            peak_bytes=final.peak_bytes,
            accuracy=final.validation_accuracy,
        )
    for trial in records.complete:
        if trial.candidate.digest == picked.digest:
            return _shown_trial(records, trial, label=f"picked (trial {trial.number})")
    for baseline in records.baselines:
        if baseline.candidate.digest == picked.digest:
            return Shown(
                label=f"picked ({baseline.label})",
                candidate=picked,
                peak_bytes=baseline.peak_bytes,
                accuracy=baseline.accuracy,
            )
    raise RunError(
        f"{records.folder}: candidate {picked.digest} was never trained in this run; "
        "take one that `dse pick` gives"
    )


def _shown_trial(records: RunRecords, trial: TrialRecord, *, label: str) -> Shown:
    final = records.final_of(trial.candidate)
    accuracy = trial.accuracy or 0.0
    return Shown(
        label=label,
        candidate=trial.candidate,
        peak_bytes=trial.peak_bytes,
        accuracy=accuracy if final is None else final.validation_accuracy,
    )


def _plane(trials: tuple[TrialRecord, ...]) -> NDArray[np.float64]:
    """Return peak bytes and accuracy, (trials, 2)."""
    rows = [(trial.peak_bytes, trial.accuracy) for trial in trials]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def _values(
    scored: tuple[TrialRecord, ...] | tuple[BaselineRecord, ...], objectives: tuple[str, ...]
) -> NDArray[np.float64]:
    """Return the objectives, (records, objectives)."""
    rows = [[record.values[name] for name in objectives] for record in scored]
    return np.array(rows, dtype=np.float64).reshape(-1, len(objectives))


def _scaled(
    records: RunRecords, scored: tuple[TrialRecord, ...] | tuple[BaselineRecord, ...]
) -> NDArray[np.float64]:
    """Return the objectives in units of the reference box, (records, objectives)."""
    objectives = records.study.search.objectives
    reference = np.array([records.reference[name] for name in objectives])
    up = np.array(maximised(objectives))
    low, high = np.where(up, reference, 0.0), np.where(up, 1.0, reference)
    scaled: NDArray[np.float64] = (_values(scored, objectives) - low) / (high - low)
    return scaled


def _scaled_reference(objectives: tuple[str, ...]) -> NDArray[np.float64]:
    return np.where(maximised(objectives), 0.0, 1.0)
