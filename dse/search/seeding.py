"""Enters baselines as trials, so that samplers learn from them and the front includes them."""

from collections.abc import Iterable

from optuna.trial import TrialState, create_trial

from dse.candidate import Candidate
from dse.results.candidate_records import BaselineRecord, TrialRecord
from dse.results.trials import (
    ACCURACY,
    BASELINE_LABEL,
    CANDIDATE,
    CORRECT,
    FIDELITY,
    FOLDER,
    LOSS,
    PEAK_BYTES,
    RUNG,
    SEEDS,
    WALL_SECONDS,
    trial_record,
)
from dse.sampling.search_space import SearchSpace
from dse.search.gate import CONSTRAINT
from dse.search.handing_out import Job, hand_out
from dse.search.session import Session


def seed_trials(session: Session, baselines: Iterable[BaselineRecord]) -> None:
    """Add scored baselines to the Optuna study as complete trials, which costs no training.

    They count neither as trials nor as draws of the search. Baselines that exceed every budget or
    lie outside the search space are left out. One worker adds them, and the others wait for it.

    Args:
        session: the run's session.
        baselines: scored baselines.
    """
    usable = [
        one
        for one in baselines
        if session.gate.fits(one.peak_bytes) and holds(session.space, one.candidate)
    ]

    def missing() -> list[BaselineRecord]:
        trials = session.archive.get_trials(deepcopy=False)
        known = {trial.user_attrs.get(BASELINE_LABEL) for trial in trials}
        return [one for one in usable if one.label not in known]

    job = Job(
        key="baselines as trials",
        is_done=lambda: not missing(),
        run=lambda: _seed(session, missing()),
    )
    hand_out([job], session.colleagues)


def _seed(session: Session, baselines: Iterable[BaselineRecord]) -> None:
    archive = session.archive
    seeded: list[TrialRecord] = []
    for baseline in baselines:
        evaluation = session.trainer.score(baseline.candidate, fidelity="short")
        kept = baseline.candidate.kept(session.space.choices)
        trial = create_trial(
            state=TrialState.COMPLETE,
            params=session.space.parameters(
                kept,
                recipe=session.space.recipe_number(baseline.candidate) or 0,
                shifts=session.space.shifts(baseline.candidate),
            ),
            distributions=session.space.distributions,
            values=[baseline.values[name] for name in session.study.search.objectives],
            constraints={CONSTRAINT: session.gate.constraint(baseline.peak_bytes)},
            user_attrs={
                FOLDER: session.identity,
                BASELINE_LABEL: baseline.label,
                CANDIDATE: baseline.candidate.canonical_json(),
                PEAK_BYTES: baseline.peak_bytes,
                ACCURACY: baseline.accuracy,
                LOSS: evaluation.loss,
                CORRECT: evaluation.correct,
                WALL_SECONDS: 0.0,  # the time was counted for the baseline
                SEEDS: [evaluation.seed],
                FIDELITY: "short",
                **({} if evaluation.rung_accuracy is None else {RUNG: evaluation.rung_accuracy}),
            },
        )
        archive.add_trial(trial)
        entered = archive.get_trials(deepcopy=False)[-1]
        record = trial_record(entered, objectives=session.study.search.objectives)
        if record is not None:
            session.meter.count(record)
            seeded.append(record)
    if seeded:
        numbers = [record.number for record in seeded]
        which = (
            f"trial {numbers[0]}" if len(seeded) == 1 else f"trials {numbers[0]} to {numbers[-1]}"
        )
        session.observer.on_message(
            f"baselines that fit a budget, entered as {which} and trained no more: "
            + ", ".join(str(record.baseline) for record in seeded)
        )


def holds(space: SearchSpace, candidate: Candidate) -> bool:
    """Return whether a candidate's recipe and channels are points of the search space."""
    if space.recipe_number(candidate) is None:
        return False
    kept = candidate.kept(space.choices)
    return all(count in ladder for count, ladder in zip(kept, space.ladders, strict=True))
