"""What the faster database storage reads and writes is what Optuna's own reads and writes."""

import math
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

from dse.search import database
from dse.search.database import Database

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
    monkeypatch.setattr(database, "_MOST_VARIABLES", 2)
    ids = {1, 2, 3, 4, 5, 6, 7}
    plain = RDBStorage(url)._get_trials(study_id, None, ids, 7)
    found = Database(url)._get_trials(study_id, None, ids, 7)
    assert list(map(repr, found)) == list(map(repr, plain))


def test_parameters_are_written_as_by_optuna(tmp_path: Path) -> None:
    rows = []
    for name, storage in (("a", RDBStorage), ("b", Database)):
        url = f"sqlite:///{tmp_path}/{name}.db"
        study = optuna.create_study(
            study_name="one", storage=storage(url), sampler=optuna.samplers.RandomSampler(seed=1)
        )
        for _ in range(3):  # from the second on, the distributions are known
            study.tell(study.ask(SPACE), 1.0)
        with sa.create_engine(url).connect() as connection:
            rows.append(connection.exec_driver_sql("SELECT * FROM trial_params").fetchall())
        connection.engine.dispose()
    assert len(rows[0]) == 3 * len(SPACE)
    assert rows[0] == rows[1]


def test_a_parameter_is_refused_where_optuna_refuses_it(tmp_path: Path) -> None:
    storage = Database(f"sqlite:///{tmp_path}/study.db")
    study = optuna.create_study(study_name="one", storage=storage)
    one, other = SPACE["width"], SPACE["ratio:features.0"]
    trial = study.ask({"width": one})
    storage._set_trial_param(trial._trial_id, "width", 8.0, one, one)  # written
    assert storage.get_trial(trial._trial_id).params == trial.params
    with pytest.raises(ValueError, match="distribution kind"):
        storage._set_trial_param(trial._trial_id, "new", 0.5, other, one)
    study.tell(trial, 1.0)
    with pytest.raises(UpdateFinishedTrialError):
        storage._set_trial_param(trial._trial_id, "new", 8.0, one, one)
    with pytest.raises(KeyError):
        storage._set_trial_param(999, "new", 8.0, one, one)
    with pytest.raises(KeyError):
        storage._get_trials(999, None, set(), -1)


def test_a_missing_value_is_reported(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study_id = filled(url)
    storage = Database(url)
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_values SET value = NULL WHERE trial_value_id = 2")
    with pytest.raises(ValueError, match="value is missing"):
        storage._get_trials(study_id, None, set(), -1)
