"""The search loop: ask, gate, train, tell."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from dse.errors import InfeasibleError, RunError, TrainingError
from dse.results.candidate_records import TrialRecord
from dse.results.trials import (
    ACCURACY,
    ADMITTED,
    ATTEMPT,
    CANDIDATE,
    CORRECT,
    DUPLICATE_OF,
    EXPECTED,
    FAILURE,
    FIDELITY,
    FOLDER,
    LOSS,
    MESSAGE,
    PEAK_BYTES,
    RUNG,
    SEEDS,
    TARGET_BYTES,
    VERDICT,
    WALL_SECONDS,
    WITHDRAWN,
    WORKER,
    Failure,
    trial_record,
    write,
)
from dse.sampling.climb import Climbed, can_matter, expected
from dse.sampling.front_sampler import FrontSampler
from dse.sampling.samplers import make_sampler, mixed
from dse.search.database import at_once
from dse.search.draws import DrawSampler
from dse.search.gate import CONSTRAINT
from dse.search.patience import STORAGE_ERRORS
from dse.search.resume import put_back
from dse.search.session import Session
from dse.search.trainer import rung_of
from dse.search.turns import has_room, in_turn, is_full, is_lost, wait_for_others
from dse.units import format_size

GATED_IN_A_ROW = 300
"""The search ends after this many draws in a row that gave nothing new to train."""

FAILURES_IN_A_ROW = 10
"""The run stops after this many failed trials in a row."""

DIVERGED_IN_A_ROW = 3
"""The same if the recipe is fixed and every trial diverged: the study's settings are to blame."""


def sample(session: Session, *, deadline: float | None) -> None:
    """Draw and train candidates until the study's number is reached or the time is up.

    The number counts the trials of all workers. Where others train the last ones, this waits for
    their results, and trains what a worker that dies leaves.

    Args:
        session: the run's session.
        deadline: time on the meter's clock in seconds, after which no trial begins; None for no
            limit.

    Raises:
        KeyboardInterrupt: on a stop request, after the current trial was queued again.
        TrainingError: if ten candidates in a row could not be trained, or three diverged with a
            fixed recipe.
        InfeasibleError: if no candidate ever drawn fits.
    """
    wanted = session.study.search.trials
    meter = session.meter
    meter.deadline = deadline
    meter.begin("search", total=wanted, done=meter.trained + meter.failed)
    session.observer.on_phase("search", wanted)
    session.archive.sampler = draws = DrawSampler(partial(_sampler, session))
    gated = 0
    failures: list[TrainingError] = []
    while meter.done < wanted and (deadline is None or meter.clock() < deadline):
        if (reason := _enough(session)) is not None:
            session.observer.on_message(
                f"the search ends after {meter.trained} candidates: {reason}"
            )
            break
        session.trainer.prepare()
        if not has_room(session):
            session.colleagues.pause()
            continue
        ended = _one(session, draws)
        if ended is None:
            session.colleagues.pause()
            continue
        record, failure = ended
        meter.count(record)
        session.observer.on_trial(record, meter.now)
        gated = gated + 1 if record.state in ("infeasible", "duplicate") else 0
        if record.state in ("complete", "stopped"):
            failures.clear()
        elif failure is not None:
            failures.append(failure)
            _check_failures(failures, record, fixed_recipe=not session.space.varied)
        if gated == GATED_IN_A_ROW:
            _end_early(session)
            break
    wait_for_others(session)


def _check_failures(
    failures: Sequence[TrainingError], record: TrialRecord, *, fixed_recipe: bool
) -> None:
    """Stop the run after too many failed trials in a row.

    Raises:
        TrainingError: if there were too many; the message gives the last one's reason.
    """
    diverged = fixed_recipe and all(one.kind == "training" for one in failures)
    if len(failures) < (DIVERGED_IN_A_ROW if diverged else FAILURES_IN_A_ROW):
        return
    recipe = record.candidate.recipe_text
    last = f"the last, {recipe}" if recipe else "the last"
    raise TrainingError(
        f"{len(failures)} candidates in a row could not be trained; {last}: {failures[-1]}"
    ) from failures[-1]


def _enough(session: Session) -> str | None:
    """Return why no new trial should start, by the study's stopping rules; None if one should."""
    search, meter = session.study.search, session.meter
    if search.images is not None:
        images = session.trainer.images_trained
        if images >= search.images:
            return f"{images} images were trained, of search.images = {search.images}"
    if search.level_window is not None:
        risen = meter.risen(search.level_window)
        if risen is not None and risen < search.level_gain:
            return (
                f"over the last {search.level_window} the hypervolume rose by {risen:.4f} of its "
                f"box, less than search.level_gain = {search.level_gain:g}"
            )
    return None


def _one(session: Session, draws: DrawSampler) -> tuple[TrialRecord, TrainingError | None] | None:
    """Run one trial; return its record, and the error if its training failed.

    Returns:
        None if other workers took the last of the study's trials, or gave this one to another
        because this process didn't respond for long.
    """
    archive, search = session.archive, session.study.search
    trial = archive.ask()
    failure = None
    try:
        ended = _run(session, draws, trial)
    except TrainingError as error:
        failure = error
        ended = _fail(archive, trial, kind=error.kind, message=str(error))
    except (KeyboardInterrupt, RunError):
        with suppress(*STORAGE_ERRORS):  # else it is queued again when the study is run again
            _interrupted(session, trial)
        raise
    except STORAGE_ERRORS:
        raise  # nothing can be written; the trial is recovered when the run is resumed
    except Exception as error:
        if is_lost(session, trial):
            session.observer.on_message(
                f"trial {trial.number} was given to another worker, because this one had not "
                "responded for long"
            )
            return None
        _fail(archive, trial, kind="error", message=f"{type(error).__name__}: {error}")
        raise
    if ended is None:
        return None
    record = trial_record(ended, objectives=search.objectives)
    if record is None:
        raise RunError(f"trial {trial.number} lost its candidate; the storage is damaged")
    return record, failure


def _sampler(session: Session, draw: int) -> BaseSampler:
    """Return the sampler for one draw, seeded by the study's seed and the draw's number."""
    name, seed = session.study.search.sampler, session.study.seed
    if name != "front":
        shared = session.colleagues.number is not None
        return make_sampler(name, seed=seed, draw=draw, shared=shared)
    return FrontSampler(
        session.proposer,
        session.space,
        target_bytes=session.aiming.target(draw),
        seed=mixed(seed, draw),
        evaluated=session.evaluated,
    )


def _run(session: Session, draws: DrawSampler, trial: optuna.Trial) -> FrozenTrial | None:
    """Draw a candidate, pass it through the gate, train it if allowed, and tell the result.

    Returns:
        The trial; None if the study had enough trials by the time it had been drawn.
    """
    archive, gate = session.archive, session.gate
    draw = draws.draw_of(archive, trial.number)
    # A retried draw keeps its target. The `front` sampler has chosen its own target already.
    aims = session.study.search.sampler != "front"
    target_bytes = trial.user_attrs.get(TARGET_BYTES, session.aiming.target(draw) if aims else None)
    with at_once(session.storage):
        write(trial, **{FOLDER: session.identity})
        if session.colleagues.number is not None:
            write(trial, **{WORKER: session.colleagues.number})
        if target_bytes is not None:
            write(trial, **{TARGET_BYTES: target_bytes})
        drawn = session.space.draw(trial)
    candidate = session.aiming.candidate(drawn, target_bytes=target_bytes)
    costs = session.costs.of(candidate)
    peak_bytes = costs["peak_bytes"]
    again = ADMITTED in trial.user_attrs
    past = archive.get_trials(deepcopy=False) if again else in_turn(session, trial.number)
    if not again and is_full(session, past):
        write(trial, **{WITHDRAWN: True})
        archive.tell(trial, state=TrialState.FAIL)
        return None
    others = [one for one in past if one.number != trial.number]
    verdict = gate.judge(candidate, peak_bytes=peak_bytes, trials=others)
    with at_once(session.storage):
        trial.set_constraint(CONSTRAINT, gate.constraint(peak_bytes))
        write(trial, **{PEAK_BYTES: peak_bytes, CANDIDATE: candidate.canonical_json()})
        if verdict.state == "train":
            write(trial, **{ADMITTED: candidate.canonical_json()})
        else:
            write(trial, **{VERDICT: verdict.state})
        if verdict.duplicate_of is not None:
            write(trial, **{DUPLICATE_OF: verdict.duplicate_of})
    if verdict.state != "train":
        return archive.tell(trial, state=TrialState.PRUNED)
    climbed = climbed_before(past)
    rung = rung_of(session.study, lambda found: can_matter(found, peak_bytes, climbed))
    # Only an earlier attempt may have stored this candidate's training.
    evaluation = session.trainer.score(candidate, fidelity="short", rung=rung, fresh=again)
    if evaluation.rung_accuracy is not None:
        write(trial, **{RUNG: evaluation.rung_accuracy})
    if evaluation.stopped:
        with at_once(session.storage):
            write(
                trial,
                **{
                    VERDICT: "stopped",
                    EXPECTED: expected(evaluation.accuracy, climbed),
                    WALL_SECONDS: evaluation.wall_seconds,
                    SEEDS: [evaluation.seed],
                    FIDELITY: "short",
                },
            )
        return archive.tell(trial, state=TrialState.PRUNED)
    values = {"accuracy": evaluation.accuracy, **costs}
    with at_once(session.storage):
        write(
            trial,
            **{
                FIDELITY: "short",
                ACCURACY: evaluation.accuracy,
                LOSS: evaluation.loss,
                CORRECT: evaluation.correct,
                WALL_SECONDS: evaluation.wall_seconds,
                SEEDS: [evaluation.seed],
            },
        )
    return archive.tell(trial, [values[name] for name in session.study.search.objectives])


def climbed_before(past: Sequence[FrozenTrial]) -> list[Climbed]:
    """Return the trials that trained past their rungs, including baselines entered as trials."""
    return [
        Climbed(
            trial.user_attrs[PEAK_BYTES], trial.user_attrs[RUNG], float(trial.user_attrs[ACCURACY])
        )
        for trial in past
        if trial.state is TrialState.COMPLETE and RUNG in trial.user_attrs
    ]


def _fail(
    archive: optuna.Study, trial: optuna.Trial, *, kind: Failure, message: str
) -> FrozenTrial:
    write(trial, **{FAILURE: kind, MESSAGE: message})
    return archive.tell(trial, state=TrialState.FAIL)


def _interrupted(session: Session, trial: optuna.Trial) -> None:
    """Queue a trial again, unless its result was stored just before the interruption."""
    running = session.archive.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for frozen in running:
        if frozen.number == trial.number:
            attempt = int(frozen.user_attrs.get(ATTEMPT, 1))
            shared = session.colleagues.number is not None
            put_back(session.archive, frozen, session.space, attempt=attempt, shared=shared)


def _end_early(session: Session) -> None:
    """Report why the search draws no more candidates.

    Raises:
        InfeasibleError: if nothing was ever trained.
    """
    states, limit = session.meter.states, format_size(session.gate.limit_bytes)
    trained = session.meter.trained
    if not states["complete"]:
        smallest = format_size(session.aiming.smallest_bytes)
        raise InfeasibleError(
            f"none of {states['infeasible']} draws fits the largest budget, {limit} (the smallest "
            f"network needs {smallest}); raise search.budgets or the lower ends of space.ratio"
        )
    session.observer.on_message(
        f"the search ends after {trained} of {session.study.search.trials} candidates: "
        f"the last {GATED_IN_A_ROW} draws were over the largest budget, {limit}, or known already; "
        "raise search.budgets or widen the search space for more"
    )
