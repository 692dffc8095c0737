"""User attributes of Optuna trials, and the records that are read back from them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from dse.candidate import Candidate
from dse.results.candidate_records import TrialRecord
from dse.results.candidate_records import TrialState as RecordState

# User attribute of the study: prefix of a baseline's label. Holds its record.
BASELINE = "baseline:"

# User attribute of the study for a failed baseline or finalist: prefix of its kind and label.
FAILED = "failed:"

# User attributes of a trial.
TARGET_BYTES = "target_bytes"  # peak memory that the draw aimed at
FOLDER = "folder"  # identity of the run folder whose process runs the trial
BASELINE_LABEL = "baseline"  # label of the baseline that the trial repeats at no cost
CANDIDATE = "candidate"
PEAK_BYTES = "peak_bytes"
ACCURACY = "accuracy"
LOSS = "loss"
WALL_SECONDS = "wall_seconds"
SEEDS = "seeds"
FIDELITY = "fidelity"
RUNG = "rung_accuracy"  # accuracy after part of the training
EXPECTED = "expected_accuracy"  # estimated final accuracy of a candidate stopped at its rung
VERDICT = "verdict"  # why a pruned trial was not trained
DUPLICATE_OF = "duplicate_of"
FAILURE = "failure"  # why a failed trial is not repeated
MESSAGE = "message"
CORRECT = "correct"  # correctly classified images of each class, on the selection part
RETRY_OF = "retry_of"
WORKER = "worker"  # number of the worker that runs the trial, if there are several
ADMITTED = "admitted"  # candidate of a trial that passed the gate and counts as one of the study's
WITHDRAWN = "withdrawn"  # the study had enough trials when this one had been drawn
ATTEMPT = "attempt"

Failure = Literal["training", "memory", "error", "given up"]


def settled(trial: FrozenTrial) -> bool:
    """Whether a trial's draw is final: it is not waiting, running, or failed and to be repeated."""
    if trial.state is TrialState.FAIL:
        return FAILURE in trial.user_attrs
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def drawn(trial: FrozenTrial) -> bool:
    """Whether a trial is settled and was drawn by a sampler."""
    return settled(trial) and BASELINE_LABEL not in trial.user_attrs


def draws_before(trials: Iterable[FrozenTrial], number: int) -> int:
    """Count the trials below a number that were drawn by a sampler, or are being drawn."""
    return sum(
        one.number < number and (drawn(one) or one.state is TrialState.RUNNING) for one in trials
    )


def under_way(trial: FrozenTrial) -> bool:
    """Whether a trial passed the gate and has no result yet; its training may be interrupted."""
    return not trial.state.is_finished() and ADMITTED in trial.user_attrs


def first_with(trials: Sequence[FrozenTrial], candidate: Candidate) -> FrozenTrial | None:
    """Find the trial that evaluated or evaluates a candidate, successfully or not; else None."""
    text = candidate.canonical_json()
    for trial in trials:
        if under_way(trial) and trial.user_attrs[ADMITTED] == text:
            return trial
        given_up = trial.user_attrs.get(VERDICT) == "stopped"
        tried = trial.state is TrialState.COMPLETE or FAILURE in trial.user_attrs or given_up
        if tried and trial.user_attrs.get(CANDIDATE) == text:
            return trial
    return None


def trial_record(trial: FrozenTrial, *, objectives: Sequence[str]) -> TrialRecord | None:
    """Read a trial's record. None if the trial waits, or failed before its candidate was known."""
    written: dict[str, Any] = trial.user_attrs
    if trial.state is TrialState.WAITING or CANDIDATE not in written:
        return None
    place = f"trial {trial.number}"
    values = trial.values if trial.state is TrialState.COMPLETE else ()
    return TrialRecord(
        number=trial.number,
        state=_state(trial),
        params=trial.params,
        candidate=Candidate.from_json(written[CANDIDATE], source=place),
        peak_bytes=written[PEAK_BYTES],
        accuracy=written.get(ACCURACY) if values else None,
        values=dict(zip(objectives, values, strict=True)) if values else {},
        wall_seconds=written.get(WALL_SECONDS, 0.0),
        seeds=tuple(written.get(SEEDS, ())),
        fidelity=written.get(FIDELITY),
        duplicate_of=written.get(DUPLICATE_OF),
        baseline=written.get(BASELINE_LABEL),
        failure=written.get(MESSAGE) if trial.state is TrialState.FAIL else None,
        correct=_correct(written),
    )


def _correct(written: Mapping[str, Any]) -> tuple[int, ...] | None:
    found = written.get(CORRECT)
    return None if found is None else tuple(found)


def died_early(trial: FrozenTrial) -> bool:
    """Whether a trial failed before its candidate was known."""
    known = CANDIDATE in trial.user_attrs or WITHDRAWN in trial.user_attrs
    return trial.state is TrialState.FAIL and not known


def write(trial: optuna.Trial, **values: Any) -> None:
    """Write several user attributes."""
    for key, value in values.items():
        trial.set_user_attr(key, value)


def _state(trial: FrozenTrial) -> RecordState:
    match trial.state:
        case TrialState.COMPLETE:
            return "complete"
        case TrialState.PRUNED:
            verdict: RecordState = trial.user_attrs[VERDICT]
            return verdict
        case TrialState.FAIL:
            return "failed"
        case _:
            return "running"
