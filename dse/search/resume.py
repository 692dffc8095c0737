"""Trials that were under way when their process died: failed, and drawn again."""

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from dse.results.trials import ATTEMPT, FAILURE, FOLDER, MESSAGE, RETRY_OF, TARGET_BYTES
from dse.sampling.search_space import SearchSpace

ATTEMPTS = 3


def recover(
    archive: optuna.Study,
    storage: RDBStorage,
    space: SearchSpace,
    *,
    identity: str,
    exclusive: bool,
) -> int:
    """Put back what this folder's last process left under way.

    Args:
        archive: the Optuna study.
        storage: it lies in.
        space: tells whether a trial's draw was complete.
        identity: of the run folder, held by this process.
        exclusive: whether no other folder uses the storage, so that every running trial is ours.

    Returns:
        How many trials were put back.
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
    """Fail a running trial and queue its draw again, as a trial without a history.

    The new trial is queued first, and only once: dying between the two steps loses nothing.

    Args:
        archive: the Optuna study.
        trial: running; one whose draw is incomplete is only failed (the same draw comes anyway).
        space: tells whether the draw is complete.
        attempt: of the new trial, the first one counting 1.
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


def _give_up(archive: optuna.Study, storage: RDBStorage, trial: FrozenTrial) -> None:
    trial_id = storage.get_trial_id_from_study_id_trial_number(
        storage.get_study_id_from_name(archive.study_name), trial.number
    )
    storage.set_trial_user_attr(trial_id, FAILURE, "given up")
    storage.set_trial_user_attr(
        trial_id, MESSAGE, f"its process died {ATTEMPTS} times while it was under way"
    )
    archive.tell(trial.number, state=TrialState.FAIL)
