"""Recovers trials whose process died: they are marked as failed and their draws queued again."""

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from dse.results.trials import ATTEMPT, FAILURE, FOLDER, MESSAGE, RETRY_OF, TARGET_BYTES
from dse.sampling.search_space import SearchSpace

ATTEMPTS = 3


def recover(
    archive: optuna.Study,
    storage: BaseStorage,
    space: SearchSpace,
    *,
    identity: str,
    exclusive: bool,
) -> int:
    """Queue again the trials that this folder's last process left running.

    Args:
        archive: the Optuna study.
        storage: the storage that holds it.
        space: search space, used to see whether a trial's draw is complete.
        identity: identity of the run folder that this process holds.
        exclusive: whether no other folder uses the storage, so that every running trial is ours.

    Returns:
        Number of trials that were recovered.
    """
    running = archive.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    ours = [trial for trial in running if exclusive or trial.user_attrs.get(FOLDER) == identity]
    for trial in ours:
        attempt = int(trial.user_attrs.get(ATTEMPT, 1))
        if attempt >= ATTEMPTS:
            _give_up(archive, storage, trial)
        else:
            put_back(archive, trial, space, attempt=attempt + 1)
    return len(ours)


def put_back(
    archive: optuna.Study, trial: FrozenTrial, space: SearchSpace, *, attempt: int
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
    """
    queued = any(
        other.user_attrs.get(RETRY_OF) == trial.number
        for other in archive.get_trials(deepcopy=False)
    )
    if space.names <= trial.params.keys() and not queued:
        kept = {key: trial.user_attrs[key] for key in (TARGET_BYTES,) if key in trial.user_attrs}
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
