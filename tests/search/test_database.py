"""What the faster database storage reads and writes is what Optuna's own reads and writes."""

import math
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial

from dse.search import trial_rows
from dse.search.database import Database, Row, at_once, running_without
from dse.search.storage import close_storage, open_storage
from support.postgres import Postgres

SPACE: dict[str, BaseDistribution] = {
    "ratio:features.0": FloatDistribution(0.0, 0.9),
    "width": IntDistribution(8, 64, step=8),
    "scheme": CategoricalDistribution(("full", "last", None, 3)),
}


def filled(url: str) -> int:
    """Store trials of each state and kind of value, and trials of another study between them."""
    storage = RDBStorage(url)
    study = optuna.create_study(
        study_name="one", storage=storage, directions=["maximize", "minimize"]
    )
    other = optuna.create_study(study_name="other", storage=storage)
    for index, values in enumerate(([0.5, 3.0], [math.inf, -math.inf], [1e-300, 2.0])):
        other.add_trial(create_trial(value=float(index)))
        study.add_trial(
            create_trial(
                values=values,
                params={
                    "ratio:features.0": 0.1 * index,
                    "width": 16,
                    "scheme": (None, 3)[index % 2],
                },
                distributions=SPACE,
                user_attrs={"candidate": '{"a": [1, 2]}', "seeds": [0, 1], "é": None},
                constraints={"memory": -1.5},
                intermediate_values={0: 0.5, 3: math.nan, 4: math.inf, 5: -math.inf},
            )
        )
    running = study.ask(SPACE)
    running.set_user_attr("worker", 3)
    study.tell(study.ask(SPACE), state=TrialState.FAIL)
    study.tell(study.ask(), state=TrialState.PRUNED)
    study.enqueue_trial({"width": 8})
    identity: int = study._study_id
    close_storage(storage)
    return identity


@pytest.mark.parametrize(
    ("states", "included", "above"),
    [
        (None, set(), -1),
        (None, {2, 4, 5, 7}, 6),
        (None, {1, 2}, 10**6),
        ([TrialState.RUNNING, TrialState.WAITING], set(), -1),
        ([TrialState.COMPLETE], {2, 4, 7}, 5),
    ],
)
def test_it_reads_what_optuna_reads(
    tmp_path: Path, states: list[TrialState] | None, included: set[int], above: int
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study_id = filled(url)
    plain = RDBStorage(url)._get_trials(study_id, states, included, above)
    assert (len(plain) > 1) == (above < 10**6)
    found = Database(url)._get_trials(study_id, states, included, above)
    assert list(map(repr, found)) == list(map(repr, plain))  # as a NaN equals none


def test_many_unfinished_trials_are_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study_id = filled(url)
    monkeypatch.setattr(trial_rows, "MOST_IDS", 2)
    ids = {1, 2, 3, 4, 5, 6, 7}
    plain = RDBStorage(url)._get_trials(study_id, None, ids, 7)
    found = Database(url)._get_trials(study_id, None, ids, 7)
    assert list(map(repr, found)) == list(map(repr, plain))


def test_what_is_written_at_once_is_what_optuna_writes(tmp_path: Path) -> None:
    rows = []
    for name, storage in (("a", RDBStorage), ("b", Database)):
        url = f"sqlite:///{tmp_path}/{name}.db"
        opened = storage(url)
        study = optuna.create_study(
            study_name="one", storage=opened, sampler=optuna.samplers.RandomSampler(seed=1)
        )
        for _ in range(3):  # from the second on, the distributions are known
            trial = study.ask()
            with at_once(opened):
                trial.set_user_attr("seeds", [0])
                for key, distribution in SPACE.items():
                    trial._suggest(key, distribution)
                trial.set_user_attr("seeds", [1, 2])
                trial.set_constraint("memory", -1.0)
            trial.set_user_attr("loss", 0.5)
            study.tell(trial, 1.0)
        with sa.create_engine(url).connect() as connection:
            for table in ("params", "user_attributes", "system_attributes"):
                query = f"SELECT * FROM trial_{table}"  # noqa: S608
                found = connection.exec_driver_sql(query).fetchall()
                rows.append(sorted(tuple(row)[1:] for row in found))
        connection.engine.dispose()
    assert [len(one) for one in rows[:3]] == [9, 6, 3]
    assert rows[:3] == rows[3:]


def test_nothing_is_written_of_a_block_that_fails(tmp_path: Path) -> None:
    storage = Database(f"sqlite:///{tmp_path}/study.db")
    study = optuna.create_study(study_name="one", storage=storage)
    trial = study.ask()

    def stopped() -> None:
        with at_once(storage):
            trial.set_user_attr("a", 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not study.trials[0].user_attrs
    trial.set_user_attr("b", 1)
    assert study.trials[0].user_attrs == {"b": 1}


def test_a_repeated_write_changes_nothing(tmp_path: Path) -> None:
    storage = Database(f"sqlite:///{tmp_path}/study.db")
    study = optuna.create_study(study_name="one", storage=storage)
    study.tell(study.ask(SPACE), 1.0)
    trial = study.ask()
    write, calls = storage.write_rows, []

    def twice(rows: Sequence[Row]) -> None:
        calls.append(len(rows))
        write(rows)
        write(rows)  # the answer to the first was lost

    storage.write_rows = twice  # type: ignore[method-assign]
    with at_once(storage), at_once(storage):
        trial._suggest("width", SPACE["width"])
        trial.set_user_attr("a", 1)
    assert calls == [2]
    found = study.trials[1]
    assert (found.params, found.user_attrs) == (trial.params, {"a": 1})


def test_what_optuna_refuses_is_refused(tmp_path: Path) -> None:
    storage = Database(f"sqlite:///{tmp_path}/study.db")
    study = optuna.create_study(study_name="one", storage=storage)
    one, other = SPACE["width"], SPACE["ratio:features.0"]
    trial = study.ask({"width": one})
    with pytest.raises(ValueError, match="distribution kind"), at_once(storage):
        storage._set_trial_param(trial._trial_id, "new", 0.5, other, one)
    study.tell(trial, 1.0)
    with pytest.raises(UpdateFinishedTrialError), at_once(storage):
        trial.set_user_attr("a", 1)
    with pytest.raises(KeyError), at_once(storage):
        storage.set_trial_user_attr(999, "a", 1)
    with pytest.raises(KeyError):
        storage.get_trial(999)
    with pytest.raises(KeyError):
        storage._get_trials(999, None, set(), -1)


def test_other_storages_write_one_by_one(tmp_path: Path) -> None:
    storage = open_storage(f"journal:///{tmp_path}/study.log")
    study = optuna.create_study(study_name="one", storage=storage)
    trial = study.ask()
    with at_once(storage):
        trial.set_user_attr("a", 1)
        assert study.trials[0].user_attrs == {"a": 1}


def test_postgresql_takes_a_repeated_write(postgres: Postgres) -> None:
    storage = open_storage(postgres.create("at_once"))
    study = optuna.create_study(study_name="one", storage=storage)
    for value in range(3):
        trial = study.ask()
        with at_once(storage):
            trial._suggest("width", SPACE["width"])
            trial.set_user_attr("a", value)
        with at_once(storage):
            trial.set_user_attr("a", value + 1)
            trial.set_user_attr("a", value + 2)
        study.tell(trial, 1.0)
    assert [one.user_attrs["a"] for one in study.trials] == [2, 3, 4]
    assert all(one.params for one in study.trials)
    close_storage(storage)


def test_a_missing_value_is_reported(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study_id = filled(url)
    storage = Database(url)
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_values SET value = NULL WHERE trial_value_id = 2")
    with pytest.raises(ValueError, match="value is missing"):
        storage._get_trials(study_id, None, set(), -1)


def test_postgresql_reads_what_optuna_reads(postgres: Postgres) -> None:
    url = postgres.create("reads") + "?client_encoding=utf8"  # a database in SQL_ASCII sends bytes
    study_id = filled(url)
    storages = open_storage(url), RDBStorage(url)
    ours, optunas = (repr(one.get_all_trials(study_id)) for one in storages)  # NaN equals nothing
    assert ours == optunas
    for storage in storages:
        close_storage(storage)


def test_running_trials_without_an_attribute_are_counted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study_id = filled(url)
    storages = open_storage(url), RDBStorage(url)
    study = optuna.load_study(study_name="one", storage=storages[1])
    for worker in (1, None, 2, None):
        trial = study.ask()
        if worker is not None:
            trial.set_user_attr("worker", worker)
    for below in range(len(study.trials) + 1):
        counts = [
            running_without(one, study_id, below=below, key=key)
            for one in storages
            for key in ("worker", "other")
        ]
        running = [one for one in study.trials[:below] if one.state is TrialState.RUNNING]
        without = sum("worker" not in one.user_attrs for one in running)
        assert counts == [without, len(running)] * 2


def test_a_connection_that_died_while_it_rested_is_replaced(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dse.search.storage._REST_SECONDS", 0.0)
    storage = open_storage(postgres.create("rests"))  # without patience: nothing is tried again
    assert storage.get_all_studies() == []
    postgres.stop()
    postgres.start()
    assert storage.get_all_studies() == []
    close_storage(storage)
