"""What the workers of one study must agree on: settings, network and data.

A storage keeps a register for each study's name: the settings that the first worker of that name
brought, and those of its forks. A worker joins the study whose settings are its own; another one is
refused. The fingerprint of network and data is compared once they are read.
"""

import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import ValidationError

from dse.config import Study
from dse.config.digest import joining_digest
from dse.errors import RunError
from dse.search.setting_changes import first_difference

FINGERPRINT = "fingerprint"
"""Study attribute with the fingerprint of the network and the data that the run began with."""

MISMATCH = "mismatch:"
"""Begins the name of each study attribute about a worker that joined although it differs."""

_REGISTER = " (settings)"
_DIGEST, _NAME, _SETTINGS, _FORK, _TOKEN = "digest", "study_name", "settings", "fork", "token"


def study_name_of(study: Study) -> str:
    """Return the name of a study's Optuna study, which differs for other settings."""
    return f"{study.name}-{joining_digest(_dumped(study))[:8]}"


def registered_name(
    study: Study,
    storage: BaseStorage,
    *,
    fork: bool,
    allow_mismatch: bool,
    on_message: Callable[[str], None],
) -> str:
    """Return the name of the Optuna study that a worker of these settings joins or begins.

    Args:
        study: the worker's study.
        storage: a storage that workers share.
        fork: begin a study of its own if the storage holds one with other settings.
        allow_mismatch: join that study although the settings differ.
        on_message: called with one line if the worker joins a study with other settings.

    Raises:
        RunError: if the settings differ, and neither is allowed.
    """
    register = optuna.create_study(
        study_name=study.name + _REGISTER, storage=storage, load_if_exists=True
    )
    digest, token = joining_digest(_dumped(study)), uuid.uuid4().hex
    if not _entry(register, digest):
        entry = {
            _DIGEST: digest,
            _NAME: study_name_of(study),
            _SETTINGS: json.dumps(_dumped(study)),
            _FORK: fork,
            _TOKEN: token,
        }
        register.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=entry))
    entries = _entries(register)
    # Entries are numbered one after the other: the first one decides, whoever wrote at once.
    first = next(one for one in entries if not one.user_attrs[_FORK] or one is entries[0])
    own = next(one for one in entries if one.user_attrs[_DIGEST] == digest)
    if own.number == first.number or own.user_attrs[_FORK]:
        return str(own.user_attrs[_NAME])
    register.tell(own.number, state=TrialState.FAIL)
    what = _difference(first.user_attrs[_SETTINGS], study)
    if allow_mismatch:
        on_message(f"joins study {study.name!r} although it began with {what}")
        return str(first.user_attrs[_NAME])
    raise RunError(
        f"the storage holds study {study.name!r} with {what}; results would not compare: set it "
        "back, give --fork to begin a study of its own, or join it all the same with "
        "--allow-mismatch"
    )


def confirm_fingerprint(
    archive: optuna.Study,
    fingerprint: Mapping[str, Any],
    *,
    allow_mismatch: bool,
    on_message: Callable[[str], None],
) -> None:
    """Check that this worker has the network and data of the study, or store them as the first.

    Args:
        archive: the Optuna study; a claim must keep other workers from storing theirs.
        fingerprint: this worker's.
        allow_mismatch: join although they differ; the storage records it.
        on_message: called with one line if they differ and that is allowed.

    Raises:
        RunError: if the network or the data differ.
    """
    known = archive.user_attrs.get(FINGERPRINT)
    if known is None:
        archive.set_user_attr(FINGERPRINT, dict(fingerprint))
        return
    plain = json.loads(json.dumps(dict(fingerprint)))
    differing = sorted(key for key in known | plain if known.get(key) != plain.get(key))
    if not differing:
        return
    key = differing[0]
    what = f"{key} = {known.get(key)}, here it is {plain.get(key)}"
    if not allow_mismatch:
        raise RunError(
            f"the study in the storage began with {what}; results would not compare: restore the "
            "network and the data, or join all the same with --allow-mismatch"
        )
    archive.set_user_attr(MISMATCH + uuid.uuid4().hex, {one: plain.get(one) for one in differing})
    on_message(f"joins although the study began with {what}")


def _dumped(study: Study) -> dict[str, Any]:
    return study.model_dump(mode="json", exclude_none=True)


def _entries(register: optuna.Study) -> list[FrozenTrial]:
    return register.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _entry(register: optuna.Study, digest: str) -> bool:
    return any(one.user_attrs[_DIGEST] == digest for one in _entries(register))


def _difference(settings: str, study: Study) -> str:
    """Return the first setting that differs, as `key = before, here it is now`."""
    try:
        before = Study.model_validate(json.loads(settings))
        key, old, new = first_difference(before, study)
    except (ValidationError, ValueError):  # of another release
        return "other settings"
    return f"{key} = {old}, here it is {new}"
