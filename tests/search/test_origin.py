"""What a worker must have in common with the study that it joins."""

from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage

from dse.config import TrainingConfig
from dse.errors import RunError
from dse.search.origin import confirm_fingerprint, registered_name, study_name_of
from dse.search.storage import open_storage
from support.searches import tiny_study


@pytest.fixture
def storage(tmp_path: Path) -> BaseStorage:
    return open_storage(f"sqlite:///{tmp_path}/study.db")


def name_of(
    storage: BaseStorage, rate: float = 0.05, *, fork: bool = False, allow: bool = False
) -> str:
    study = tiny_study().model_copy(update={"training": TrainingConfig(learning_rate=rate)})
    return registered_name(
        study, storage, fork=fork, allow_mismatch=allow, on_message=messages.append
    )


messages: list[str] = []


def test_workers_with_equal_settings_join_and_others_are_refused(storage: BaseStorage) -> None:
    first = name_of(storage)
    assert name_of(storage) == first
    with pytest.raises(RunError, match=r"learning_rate = 0\.05, here it is 0\.1; results"):
        name_of(storage, 0.1)
    assert name_of(storage) == first  # a refused worker leaves nothing behind


def test_a_mismatch_may_be_allowed_and_a_study_forked(storage: BaseStorage) -> None:
    first = name_of(storage)
    messages.clear()
    assert name_of(storage, 0.1, allow=True) == first
    assert "although it began with training.learning_rate = 0.05" in messages[0]
    forked = name_of(storage, 0.2, fork=True)
    assert forked != first
    assert name_of(storage, 0.2) == forked  # further workers join the fork
    assert name_of(storage) == first


def test_threads_and_the_place_of_the_data_may_differ() -> None:
    study = tiny_study()
    elsewhere = study.model_copy(update={"training": TrainingConfig(threads=3)})
    other = study.model_copy(update={"training": TrainingConfig(batch_size=7)})
    assert study_name_of(study) == study_name_of(elsewhere)
    assert study_name_of(study) != study_name_of(other)


def test_another_network_or_other_data_are_refused_or_recorded(storage: BaseStorage) -> None:
    archive = optuna.create_study(storage=storage)

    def confirm(*, allow: bool = False, **fingerprint: object) -> None:
        confirm_fingerprint(archive, fingerprint, allow_mismatch=allow, on_message=messages.append)

    confirm(network="a", images=(3, 4))
    confirm(network="a", images=(3, 4))
    with pytest.raises(RunError, match=r"began with images = \[3, 4\], here it is \[3, 5\]"):
        confirm(network="a", images=(3, 5))
    confirm(network="a", images=(3, 5), allow=True)
    (recorded,) = (v for k, v in archive.user_attrs.items() if k.startswith("mismatch:"))
    assert recorded == {"images": [3, 5]}
