"""Optuna's database storage, with plain rows where a study has many trials and parameters.

Optuna makes an object for each stored value of each trial, and parses the distribution of each
parameter anew. With tens of parameters, a few thousand trials then take many seconds to open. Here
rows become trials without such objects, and equal distributions are one object. What a worker
writes of a trial at one time, such as all parameters of a draw, is one transaction.
"""

import json
import math
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from enum import IntEnum
from functools import cache, lru_cache
from operator import itemgetter
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

_MOST_IDS = 150  # in a list, which a statement has up to five times: databases limit variables
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
        *full, rest = _lists(lower) or [()]
        later = sa.or_(_TRIALS.trial_id.in_(rest), _TRIALS.trial_id > trial_id_greater_than)
        found: list[FrozenTrial] = []
        for part in (*(_TRIALS.trial_id.in_(ids) for ids in full), later):
            found += _read(self.engine, sa.and_(_TRIALS.study_id == study_id, part), states)
        if not found:
            self.get_study_name_from_id(study_id)  # raises if there is no such study
        return found

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Read one trial.

        Raises:
            KeyError: if there is no such trial.
            ValueError: if a stored value is damaged.
        """
        found = _read(self.engine, _TRIALS.trial_id == trial_id, None)
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

    def count_running_without(self, study_id: int, *, below: int, key: str) -> int:
        """Count a study's running trials below a number that lack a user attribute."""
        has = sa.exists().where(_USER.trial_id == _TRIALS.trial_id, _USER.key == key)
        query = sa.select(sa.func.count()).where(
            _TRIALS.study_id == study_id,
            _TRIALS.state == TrialState.RUNNING,
            _TRIALS.number < below,
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
    engine: sa.Engine,
    wanted: sa.ColumnElement[bool],
    states: Container[TrialState] | None,
) -> list[FrozenTrial]:
    """Read the trials that meet a condition, by ascending id, in two statements.

    Workers read often and little: what costs them is each message to the database. So no
    transaction is begun and ended, and everything that belongs to trials is read at once.
    """
    if states is not None:
        wanted = sa.and_(wanted, _TRIALS.state.in_([one for one in TrialState if one in states]))
    query = sa.select(
        _TRIALS.trial_id,
        _TRIALS.number,
        _TRIALS.state,
        _TRIALS.datetime_start,
        _TRIALS.datetime_complete,
    )
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
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
        for ids in _lists(list(found)):
            _fill(found, connection.execute(_BELONGINGS, {"ids": ids}))
    return list(found.values())


def _lists(ids: Sequence[int]) -> list[Sequence[int]]:
    """Cut ids into lists that a statement may hold."""
    return [ids[start : start + _MOST_IDS] for start in range(0, len(ids), _MOST_IDS)]


class _Part(IntEnum):
    """What a row that belongs to a trial is."""

    OBJECTIVE = 0
    INTERMEDIATE = 1
    PARAMETER = 2
    USER = 3
    SYSTEM = 4


def _belongings() -> Any:
    """Return the statement that reads all that belongs to the trials with some `ids`.

    Its columns are the part, the id of the row, the id of the trial, a name, a number and a text.
    """
    ids: sa.BindParameter[int] = sa.bindparam("ids", expanding=True)
    no_number = sa.cast(sa.null(), sa.Float)

    def word(column: Any) -> Any:
        return sa.cast(column, sa.String(64))

    parts = {
        _Part.OBJECTIVE: (
            _VALUES.trial_value_id,
            _VALUES.trial_id,
            word(_VALUES.objective),
            _VALUES.value,
            word(_VALUES.value_type),
        ),
        _Part.INTERMEDIATE: (
            _STEPS.trial_intermediate_value_id,
            _STEPS.trial_id,
            word(_STEPS.step),
            _STEPS.intermediate_value,
            word(_STEPS.intermediate_value_type),
        ),
        _Part.PARAMETER: (
            _PARAMS.param_id,
            _PARAMS.trial_id,
            _PARAMS.param_name,
            _PARAMS.param_value,
            _PARAMS.distribution_json,
        ),
        _Part.USER: (
            _USER.trial_user_attribute_id,
            _USER.trial_id,
            _USER.key,
            no_number,
            _USER.value_json,
        ),
        _Part.SYSTEM: (
            _SYSTEM.trial_system_attribute_id,
            _SYSTEM.trial_id,
            _SYSTEM.key,
            no_number,
            _SYSTEM.value_json,
        ),
    }
    names = ("row", "trial", "name", "number", "text")
    return sa.union_all(
        *(
            sa.select(
                sa.literal_column(str(int(part)), sa.Integer).label("part"),
                *(column.label(name) for name, column in zip(names, columns, strict=True)),
            ).where(columns[1].in_(ids))
            for part, columns in parts.items()
        )
    )


_BELONGINGS = _belongings()


def _fill(trials: dict[int, FrozenTrial], rows: Iterable[Any]) -> None:
    """Add to trials what belongs to them.

    Args:
        trials: the trials by their ids.
        rows: the rows of `_BELONGINGS`.

    Raises:
        ValueError: if a stored value is damaged.
    """
    objectives: dict[int, dict[int, float]] = {}
    parameters: list[tuple[int, FrozenTrial, str, float, str]] = []
    for part, row, identity, name, number, text in rows:
        trial = trials.get(identity)
        if trial is None:
            continue
        if part == _Part.PARAMETER:
            parameters.append((row, trial, name, number, text))
        elif part == _Part.USER:
            trial.user_attrs[intern(name)] = json.loads(text)
        elif part == _Part.SYSTEM:
            trial.system_attrs[intern(name)] = json.loads(text)
        elif part == _Part.OBJECTIVE:
            objectives.setdefault(identity, {})[int(name)] = _number(number, text)
        else:
            trial.intermediate_values[int(name)] = _number(number, text)
    for _, trial, name, number, text in sorted(parameters, key=itemgetter(0)):  # as suggested
        key, distribution = intern(name), _distribution(text)
        trial.params[key] = distribution.to_external_repr(number)
        trial.distributions[key] = distribution
    for identity, own in objectives.items():
        trials[identity].values = [own[objective] for objective in range(len(own))]


def _number(value: float | None, kind: str) -> float:
    """Return a stored number, which is infinite or none at all by its kind alone.

    Raises:
        ValueError: if it is missing.
    """
    if kind in _INFINITE:
        return _INFINITE[kind]
    if value is None:
        raise ValueError("a trial's value is missing")
    return value


def _local(stored: datetime | None) -> datetime | None:
    """Return the local time, without a zone, of a time that is stored as UTC without a zone."""
    return None if stored is None else stored.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
