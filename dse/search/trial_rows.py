"""Reads trials from Optuna's tables, without an object for each stored value.

Equal distributions are one object, and everything that belongs to trials is one statement.
"""

import json
import math
from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime
from enum import IntEnum
from functools import lru_cache
from operator import itemgetter
from sys import intern
from typing import Any

import sqlalchemy as sa
from optuna.distributions import json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

MOST_IDS = 150  # in a list, which a statement has up to five times: databases limit variables
TRIALS = sa.inspect(models.TrialModel).local_table.c
PARAMS_TABLE = sa.inspect(models.TrialParamModel).local_table
USER_TABLE = sa.inspect(models.TrialUserAttributeModel).local_table
SYSTEM_TABLE = sa.inspect(models.TrialSystemAttributeModel).local_table

_INFINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}
_VALUES = sa.inspect(models.TrialValueModel).local_table.c
_STEPS = sa.inspect(models.TrialIntermediateValueModel).local_table.c
_PARAMS, _USER, _SYSTEM = PARAMS_TABLE.c, USER_TABLE.c, SYSTEM_TABLE.c

_distribution = lru_cache(maxsize=4096)(json_to_distribution)


def read_trials(
    engine: sa.Engine,
    wanted: sa.ColumnElement[bool],
    states: Container[TrialState] | None,
) -> list[FrozenTrial]:
    """Read the trials that meet a condition, by ascending id, in two statements.

    Workers read often and little: what costs them is each message to the database. So no
    transaction is begun and ended, and everything that belongs to trials is read at once.

    Args:
        engine: the database.
        wanted: condition on the table of trials.
        states: states of the trials to read; None for all.

    Raises:
        ValueError: if a stored value is damaged.
    """
    if states is not None:
        wanted = sa.and_(wanted, TRIALS.state.in_([one for one in TrialState if one in states]))
    query = sa.select(
        TRIALS.trial_id,
        TRIALS.number,
        TRIALS.state,
        TRIALS.datetime_start,
        TRIALS.datetime_complete,
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
                query.where(wanted).order_by(TRIALS.trial_id)
            )
        }
        for ids in id_lists(list(found)):
            _fill(found, connection.execute(_BELONGINGS, {"ids": ids}))
    return list(found.values())


def id_lists(ids: Sequence[int]) -> list[Sequence[int]]:
    """Cut ids into lists that a statement may hold."""
    return [ids[start : start + MOST_IDS] for start in range(0, len(ids), MOST_IDS)]


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
