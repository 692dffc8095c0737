"""Recovers trials whose process died: they are marked as failed and their draws queued again."""

from collections.abc import Sequence
from contextlib import suppress

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from dse.results.trials import (
    ADMITTED,
    ATTEMPT,
    FAILURE,
    MESSAGE,
    PEAK_BYTES,
    RETRY_OF,
    TARGET_BYTES,
    WORKER,
)
from dse.sampling.search_space import SearchSpace
from dse.search.workers import Colleagues

ATTEMPTS = 3


def recover(
    archive: optuna.Study,
    storage: BaseStorage,
    space: SearchSpace,
    *,
    colleagues: Colleagues,
    trials: Sequence[FrozenTrial] | None = None,
) -> int:
    """Queue again the trials that dead workers left running.

    Args:
        archive: the Optuna study.
        storage: the storage that holds it.
        space: search space, used to see whether a trial's draw is complete.
        colleagues: the workers of the study. A worker that is alone takes every running trial for
            one that its last process left.
        trials: all trials, if they have just been read.

    Returns:
        Number of trials that were recovered.
    """
    if trials is None:
        trials = archive.get_trials(deepcopy=False)
    running = [one for one in trials if one.state is TrialState.RUNNING]
    if not running:
        return 0
    living = colleagues.living()
    unowned = {str(one.number) for one in running if one.user_attrs.get(WORKER) is None}
    stale = colleagues.stale(unowned)
    recovered = 0
    for trial in running:
        owner = trial.user_attrs.get(WORKER)
        if owner in living or (owner is None and str(trial.number) not in stale):
            continue
        if not colleagues.take(key := f"trial {trial.number}"):
            continue
        try:
            attempt = int(trial.user_attrs.get(ATTEMPT, 1))
            with suppress(UpdateFinishedTrialError):  # another worker was faster
                if attempt >= ATTEMPTS:
                    _give_up(archive, storage, trial)
                else:
                    shared = colleagues.number is not None
                    put_back(archive, trial, space, attempt=attempt + 1, shared=shared)
                recovered += 1
        finally:
            colleagues.release(key)
    return recovered


def put_back(
    archive: optuna.Study,
    trial: FrozenTrial,
    space: SearchSpace,
    *,
    attempt: int,
    shared: bool = False,
) -> None:
    """Fail a running trial and queue its draw as a new trial.

    The new trial is queued first, and only once, so that a crash between the two steps loses
    nothing.

    Args:
        archive: the Optuna study.
        trial: a running trial; if its draw is incomplete it is only failed, because the next draw
            will be the same.
        space: search space, used to see whether the draw is complete.
        attempt: number of the new trial's attempt; the original trial is attempt 1.
        shared: whether there are other workers. A trial that had not passed the gate is only failed
            then, because trials that are drawn pass it in turn and queued ones don't wait.
    """
    queued = any(
        other.user_attrs.get(RETRY_OF) == trial.number
        for other in archive.get_trials(deepcopy=False)
    )
    lost = shared and ADMITTED not in trial.user_attrs
    if space.names <= trial.params.keys() and not queued and not lost:
        kept = {
            key: trial.user_attrs[key]
            for key in (TARGET_BYTES, ADMITTED, PEAK_BYTES)
            if key in trial.user_attrs
        }
        archive.enqueue_trial(
            trial.params, user_attrs={**kept, RETRY_OF: trial.number, ATTEMPT: attempt}
        )
    archive.tell(trial.number, state=TrialState.FAIL)


def _give_up(archive: optuna.Study, storage: BaseStorage, trial: FrozenTrial) -> None:
    trial_id = storage.get_trial_id_from_study_id_trial_number(
        storage.get_study_id_from_name(archive.study_name), trial.number
    )
    storage.set_trial_user_attr(trial_id, FAILURE, "given up")
    storage.set_trial_user_attr(
        trial_id, MESSAGE, f"its process died {ATTEMPTS} times while it was under way"
    )
    archive.tell(trial.number, state=TrialState.FAIL)
