"""Optuna's database storage, with plain rows where a study has many trials and parameters.

Optuna makes an object for each stored value of each trial, and parses the distribution of each
parameter anew. With tens of parameters, a few thousand trials then take many seconds to open. Here
`trial_rows` reads them. What a worker writes of a trial at one time, such as all parameters of a
draw, is one transaction.
"""

import json
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
)
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.dialects import mysql, postgresql, sqlite

from dse.search.trial_rows import (
    PARAMS_TABLE,
    SYSTEM_TABLE,
    TRIALS,
    USER_TABLE,
    id_lists,
    read_trials,
)

_STATE = sa.select(TRIALS.state).where(TRIALS.trial_id == sa.bindparam("id"))
_INSERTS: dict[str, Callable[[sa.Table], Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
    "mysql": mysql.insert,
}


class Row(NamedTuple):
    """A value to be written.

    Attributes:
        table: Optuna's table.
        trial_id: id of the trial.
        key: name of the parameter or attribute.
        values: values of the row's columns.
    """

    table: sa.Table
    trial_id: int
    key: str
    values: dict[str, Any]


class Database(RDBStorage):
    """A database storage that reads and writes trials with fewer and cheaper statements."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Open it, as `RDBStorage` does."""
        super().__init__(*args, **kwargs)
        self._own = threading.local()

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """Read the trials above an id and some of those below it, as Optuna's cache asks for them.

        Args:
            study_id: id of the study.
            states: states of the trials to read; None for all.
            included_trial_ids: ids of trials to read although they are not above the other id.
            trial_id_greater_than: id above which all trials are read.

        Returns:
            The trials by ascending id.

        Raises:
            KeyError: if there is no such study.
            ValueError: if a stored value is damaged.
        """
        lower = sorted(one for one in included_trial_ids if one <= trial_id_greater_than)
        *full, rest = id_lists(lower) or [()]
        later = sa.or_(TRIALS.trial_id.in_(rest), TRIALS.trial_id > trial_id_greater_than)
        found: list[FrozenTrial] = []
        for part in (*(TRIALS.trial_id.in_(ids) for ids in full), later):
            found += read_trials(self.engine, sa.and_(TRIALS.study_id == study_id, part), states)
        if not found:
            self.get_study_name_from_id(study_id)  # raises if there is no such study
        return found

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Read one trial.

        Raises:
            KeyError: if there is no such trial.
            ValueError: if a stored value is damaged.
        """
        found = read_trials(self.engine, TRIALS.trial_id == trial_id, None)
        if not found:
            raise KeyError(f"there is no trial with id {trial_id}")
        return found[0]

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Write what the block sets in trials, in this thread, in one transaction at its end.

        An exception in the block leaves everything unwritten.
        """
        if self.engine.name not in _INSERTS or self._rows is not None:
            yield  # another database, or part of a larger block
            return
        rows: list[Row] = []
        self._own.rows = rows
        try:
            yield
        finally:
            self._own.rows = None
        self.write_rows(rows)

    def write_rows(self, rows: Sequence[Row]) -> None:
        """Write parameters and attributes of trials that run; a repeated call changes nothing.

        Raises:
            UpdateFinishedTrialError: if a trial has ended; nothing is written then.
            KeyError: if there is no such trial.
        """
        with self.engine.begin() as connection:
            for trial_id in {row.trial_id for row in rows}:
                state = connection.scalar(_STATE, {"id": trial_id})
                if state is None:
                    raise KeyError(f"there is no trial with id {trial_id}")
                self.check_trial_is_updatable(trial_id, state)
            for table in (PARAMS_TABLE, USER_TABLE, SYSTEM_TABLE):
                # Later values of one key replace earlier ones, which one statement could not.
                values = {(row.trial_id, row.key): row.values for row in rows if row.table is table}
                if values:
                    connection.execute(_insert(table, self.engine.name), list(values.values()))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write a user attribute of a trial; see `RDBStorage`."""
        if self._rows is None:
            super().set_trial_user_attr(trial_id, key, value)
        else:
            self._rows.append(_attribute(USER_TABLE, trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write a system attribute of a trial; see `RDBStorage`."""
        if self._rows is None:
            super().set_trial_system_attr(trial_id, key, value)
        else:
            self._rows.append(_attribute(SYSTEM_TABLE, trial_id, key, value))

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        """Write a parameter of a trial that runs.

        Args:
            trial_id: id of the trial.
            param_name: name of the parameter.
            param_value_internal: its value, as the distribution represents it internally.
            distribution: its distribution.
            previous_distribution: the study's earlier distribution of that name; None if unknown.

        Raises:
            ValueError: if the two distributions are not compatible.
        """
        if self._rows is None or previous_distribution is None:  # Optuna looks the latter up
            super()._set_trial_param(
                trial_id, param_name, param_value_internal, distribution, previous_distribution
            )
            return
        check_distribution_compatibility(previous_distribution, distribution)
        values = {
            "trial_id": trial_id,
            "param_name": param_name,
            "param_value": param_value_internal,
            "distribution_json": distribution_to_json(distribution),
        }
        self._rows.append(Row(PARAMS_TABLE, trial_id, param_name, values))

    def count_running_without(self, study_id: int, *, below: int, key: str) -> int:
        """Count a study's running trials below a number that lack a user attribute."""
        has = sa.exists().where(USER_TABLE.c.trial_id == TRIALS.trial_id, USER_TABLE.c.key == key)
        query = sa.select(sa.func.count()).where(
            TRIALS.study_id == study_id,
            TRIALS.state == TrialState.RUNNING,
            TRIALS.number < below,
            ~has,
        )
        with self.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            return int(connection.scalar(query) or 0)

    @property
    def _rows(self) -> list[Row] | None:
        """What this thread writes at once; None if it doesn't."""
        rows: list[Row] | None = getattr(self._own, "rows", None)
        return rows


@contextmanager
def at_once(storage: BaseStorage) -> Iterator[None]:
    """Write what the block sets in trials in one transaction, if the storage is a database."""
    with storage.at_once() if isinstance(storage, Database) else nullcontext():
        yield


def running_without(storage: BaseStorage, study_id: int, *, below: int, key: str) -> int:
    """Count the trials of a study that run, have a lower number, and lack a user attribute.

    Args:
        storage: the storage; a database counts them itself.
        study_id: id of the study.
        below: number.
        key: name of the attribute.
    """
    if isinstance(storage, Database):
        return storage.count_running_without(study_id, below=below, key=key)
    running = storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
    return sum(one.number < below and key not in one.user_attrs for one in running)


def _attribute(table: sa.Table, trial_id: int, key: str, value: Any) -> Row:
    return Row(
        table, trial_id, key, {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
    )


@cache
def _insert(table: sa.Table, dialect: str) -> Any:
    """Return the statement that adds rows; attributes replace those of the same key."""
    statement = _INSERTS[dialect](table)
    is_parameter = table is PARAMS_TABLE
    if dialect == "mysql":
        own = table.c.trial_id if is_parameter else statement.inserted.value_json
        return statement.on_duplicate_key_update(
            {"trial_id" if is_parameter else "value_json": own}
        )
    if is_parameter:
        return statement.on_conflict_do_nothing()
    return statement.on_conflict_do_update(
        index_elements=[table.c.trial_id, table.c.key],
        set_={"value_json": statement.excluded.value_json},
    )
