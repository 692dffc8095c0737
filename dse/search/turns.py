"""How the workers of one study share its trials: in turn, and no more than it wants.

Workers draw at the same time, but trials pass the gate in the order of their numbers. Each worker
therefore sees every candidate that was let through before its own, so no candidate is trained twice
and the number of trials is exact.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import optuna
from optuna.trial import FrozenTrial, TrialState

from dse.results.trials import ADMITTED, trial_record, under_way
from dse.search.database import running_without
from dse.search.resume import recover
from dse.search.session import Session

_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.03, 0.25  # for each trial before one
_LOOKS_BETWEEN_RECOVERIES = 4  # others draw in less time than it takes to find a worker dead


@dataclass(frozen=True)
class _Queue:
    """The trials before one, to tell how long the wait for its turn is.

    Turns follow one another, so who looks late delays all behind it; but of hundreds of workers
    most wait, and each look costs the storage. So they look twice in the time that those before
    them need at the pace seen so far, and only count.
    """

    ahead: int
    since: float

    def pause_seconds(self, ahead: int, *, now: float) -> float:
        """Return how long to wait until the next look, in seconds."""
        decided = self.ahead - ahead
        each = (now - self.since) / decided if decided else 0.0
        return ahead * min(max(_SHORTEST_PAUSE_SECONDS, each / 2), _LONGEST_PAUSE_SECONDS)


def has_room(session: Session) -> bool:
    """Return whether the study needs another trial, after counting what other workers finished."""
    if session.colleagues.number is None:
        return True
    past = keep_up(session)
    waiting = any(one.state is TrialState.WAITING for one in past)
    return waiting or not is_full(session, past)


def in_turn(session: Session, number: int) -> list[FrozenTrial]:
    """Wait until every trial with a lower number has passed the gate; return all trials.

    Args:
        session: the run's session.
        number: number of this worker's trial.
    """
    study_id = session.archive._study_id  # noqa: SLF001  # no public name
    queue: _Queue | None = None
    for looks in count(1):
        if session.colleagues.number is None:
            break
        ahead = running_without(session.storage, study_id, below=number, key=ADMITTED)
        if not ahead:
            break
        queue = queue or _Queue(ahead, time.monotonic())
        session.colleagues.pause(seconds=queue.pause_seconds(ahead, now=time.monotonic()))
        if looks % _LOOKS_BETWEEN_RECOVERIES == 0:
            recover(session.archive, session.storage, session.space, colleagues=session.colleagues)
    past = session.archive.get_trials(deepcopy=False)
    if session.colleagues.number is not None:
        count_ended(session, past)
    return past


def is_full(session: Session, past: Sequence[FrozenTrial]) -> bool:
    """Return whether the trials that ended, and those that are trained, are all that are wanted.

    Args:
        session: the run's session; its meter has counted the trials that ended.
        past: all trials of the study.
    """
    if session.colleagues.number is None:
        return False
    return session.meter.done + sum(map(under_way, past)) >= session.study.search.trials


def wait_for_others(session: Session) -> None:
    """Wait until other workers have ended their trials, and count them.

    A trial that a dead worker leaves is queued again; it is trained when the study is run again, if
    the time of this run is up.
    """
    while session.colleagues.number is not None:
        if not any(one.state is TrialState.RUNNING for one in keep_up(session)):
            return
        session.colleagues.pause()


def keep_up(session: Session) -> list[FrozenTrial]:
    """Queue the trials of dead workers again, and count what living ones finished.

    Returns:
        All trials of the study.
    """
    past = session.archive.get_trials(deepcopy=False)
    if recover(
        session.archive,
        session.storage,
        session.space,
        colleagues=session.colleagues,
        trials=past,
    ):
        past = session.archive.get_trials(deepcopy=False)
    count_ended(session, past)
    return past


def is_lost(session: Session, trial: optuna.Trial) -> bool:
    """Return whether another worker has ended this worker's trial."""
    if session.colleagues.number is None:
        return False
    past = session.archive.get_trials(deepcopy=False)
    return any(one.number == trial.number and one.state.is_finished() for one in past)


def count_ended(session: Session, past: Sequence[FrozenTrial]) -> None:
    """Count the trials that ended since the last look."""
    for trial in past:
        if not trial.state.is_finished() or trial.number in session.meter.counted:
            continue
        record = trial_record(trial, objectives=session.study.search.objectives)
        if record is not None:
            session.meter.count(record)
