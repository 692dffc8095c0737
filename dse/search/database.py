"""Optuna's database storage, with plain rows where a study has many trials and parameters.

Optuna makes an object for each stored value of each trial, and parses the distribution of each
parameter anew. With tens of parameters, a few thousand trials then take many seconds to open. Here
rows become trials without such objects, and equal distributions are one object. What a worker
writes of a trial at one time, such as all parameters of a draw, is one transaction.
"""

import json
import math
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import cache, lru_cache
from sys import intern
from typing import Any, NamedTuple

import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.dialects import mysql, postgresql, sqlite

_MOST_VARIABLES = 500  # of one statement, which databases limit
_INFINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}

_TRIALS = sa.inspect(models.TrialModel).local_table.c
_VALUES = sa.inspect(models.TrialValueModel).local_table.c
_PARAMS_TABLE = sa.inspect(models.TrialParamModel).local_table
_PARAMS = _PARAMS_TABLE.c
_USER_TABLE = sa.inspect(models.TrialUserAttributeModel).local_table
_USER = _USER_TABLE.c
_SYSTEM_TABLE = sa.inspect(models.TrialSystemAttributeModel).local_table
_SYSTEM = _SYSTEM_TABLE.c
_STEPS = sa.inspect(models.TrialIntermediateValueModel).local_table.c

_STATE = sa.select(_TRIALS.state).where(_TRIALS.trial_id == sa.bindparam("id"))
_INSERTS: dict[str, Callable[[sa.Table], Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
    "mysql": mysql.insert,
}

_distribution = lru_cache(maxsize=4096)(json_to_distribution)


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
        parts: list[sa.ColumnElement[bool]] = [
            _TRIALS.trial_id.in_(lower[start : start + _MOST_VARIABLES])
            for start in range(0, len(lower), _MOST_VARIABLES)
        ]
        parts.append(_TRIALS.trial_id > trial_id_greater_than)
        found: list[FrozenTrial] = []
        with self.engine.connect() as connection:
            for part in parts:
                of_study = sa.and_(_TRIALS.study_id == study_id, part)
                found += _read(connection, of_study, states)
        if not found:
            self.get_study_name_from_id(study_id)  # raises if there is no such study
        return found

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Read one trial.

        Raises:
            KeyError: if there is no such trial.
            ValueError: if a stored value is damaged.
        """
        with self.engine.connect() as connection:
            found = _read(connection, _TRIALS.trial_id == trial_id, None)
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
            for table in (_PARAMS_TABLE, _USER_TABLE, _SYSTEM_TABLE):
                # Later values of one key replace earlier ones, which one statement could not.
                values = {(row.trial_id, row.key): row.values for row in rows if row.table is table}
                if values:
                    connection.execute(_insert(table, self.engine.name), list(values.values()))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write a user attribute of a trial; see `RDBStorage`."""
        if self._rows is None:
            super().set_trial_user_attr(trial_id, key, value)
        else:
            self._rows.append(_attribute(_USER_TABLE, trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write a system attribute of a trial; see `RDBStorage`."""
        if self._rows is None:
            super().set_trial_system_attr(trial_id, key, value)
        else:
            self._rows.append(_attribute(_SYSTEM_TABLE, trial_id, key, value))

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
        self._rows.append(Row(_PARAMS_TABLE, trial_id, param_name, values))

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


def _attribute(table: sa.Table, trial_id: int, key: str, value: Any) -> Row:
    return Row(
        table, trial_id, key, {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
    )


@cache
def _insert(table: sa.Table, dialect: str) -> Any:
    """Return the statement that adds rows; attributes replace those of the same key."""
    statement = _INSERTS[dialect](table)
    is_parameter = table is _PARAMS_TABLE
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


def _read(
    connection: sa.Connection,
    wanted: sa.ColumnElement[bool],
    states: Container[TrialState] | None,
) -> list[FrozenTrial]:
    """Read the trials that meet a condition, by ascending id."""
    ids = sa.select(_TRIALS.trial_id).where(wanted).scalar_subquery()
    if states is not None:
        wanted = sa.and_(wanted, _TRIALS.state.in_([one for one in TrialState if one in states]))
    query = sa.select(
        _TRIALS.trial_id,
        _TRIALS.number,
        _TRIALS.state,
        _TRIALS.datetime_start,
        _TRIALS.datetime_complete,
    )
    # The trials are read first: a trial whose state is final has all its values by then.
    found = {
        identity: FrozenTrial(
            number=number,
            state=state,
            value=None,
            datetime_start=_local(start),
            datetime_complete=_local(complete),
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=identity,
        )
        for identity, number, state, start, complete in connection.execute(
            query.where(wanted).order_by(_TRIALS.trial_id)
        )
    }
    if found:
        _add_values(connection, ids, found)
        _add_parameters(connection, ids, found)
        _add_attributes(connection, ids, found)
    return list(found.values())


def _add_values(connection: sa.Connection, ids: Any, trials: dict[int, FrozenTrial]) -> None:
    """Add objectives and intermediate values."""
    query = sa.select(_VALUES.trial_id, _VALUES.objective, _VALUES.value, _VALUES.value_type)
    values: dict[int, dict[int, float]] = {}
    for identity, objective, value, kind in connection.execute(
        query.where(_VALUES.trial_id.in_(ids))
    ):
        values.setdefault(identity, {})[objective] = _number(value, kind)
    for identity, trial in trials.items():
        if identity in values:
            own = values[identity]
            trial.values = [own[objective] for objective in range(len(own))]
    steps = sa.select(
        _STEPS.trial_id, _STEPS.step, _STEPS.intermediate_value, _STEPS.intermediate_value_type
    )
    for identity, step, value, kind in connection.execute(steps.where(_STEPS.trial_id.in_(ids))):
        if identity in trials:
            trials[identity].intermediate_values[step] = _number(value, kind)


def _add_parameters(connection: sa.Connection, ids: Any, trials: dict[int, FrozenTrial]) -> None:
    query = sa.select(
        _PARAMS.trial_id, _PARAMS.param_name, _PARAMS.param_value, _PARAMS.distribution_json
    )
    for identity, key, value, text in connection.execute(
        query.where(_PARAMS.trial_id.in_(ids)).order_by(_PARAMS.param_id)
    ):
        if identity in trials:
            name, distribution = intern(key), _distribution(text)
            trial = trials[identity]
            trial.params[name] = distribution.to_external_repr(value)
            trial.distributions[name] = distribution


def _add_attributes(connection: sa.Connection, ids: Any, trials: dict[int, FrozenTrial]) -> None:
    for table, own in ((_USER, "user_attrs"), (_SYSTEM, "system_attrs")):
        query = sa.select(table.trial_id, table.key, table.value_json)
        for identity, key, text in connection.execute(query.where(table.trial_id.in_(ids))):
            if identity in trials:
                getattr(trials[identity], own)[intern(key)] = json.loads(text)


def _number(value: float | None, kind: Any) -> float:
    """Return a stored number, which is infinite or none at all by its kind alone.

    Raises:
        ValueError: if it is missing.
    """
    if kind.name in _INFINITE:
        return _INFINITE[kind.name]
    if value is None:
        raise ValueError("a trial's value is missing")
    return value


def _local(stored: datetime | None) -> datetime | None:
    """Return the local time, without a zone, of a time that is stored as UTC without a zone."""
    return None if stored is None else stored.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
