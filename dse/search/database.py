"""Optuna's database storage, with plain rows where a study has many trials and parameters.

Optuna makes an object for each stored value of each trial, and parses the distribution of each
parameter anew. With tens of parameters, a few thousand trials then take many seconds to open. Here
rows become trials without such objects, and equal distributions are one object. A drawn parameter
is written as a row too, since a draw writes tens of them.
"""

import json
import math
from collections.abc import Container
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from sys import intern
from typing import Any

import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

_MOST_VARIABLES = 500  # of one statement, which databases limit
_INFINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}

_TRIALS = sa.inspect(models.TrialModel).local_table.c
_VALUES = sa.inspect(models.TrialValueModel).local_table.c
_PARAMS_TABLE = sa.inspect(models.TrialParamModel).local_table
_PARAMS = _PARAMS_TABLE.c
_USER = sa.inspect(models.TrialUserAttributeModel).local_table.c
_SYSTEM = sa.inspect(models.TrialSystemAttributeModel).local_table.c
_STEPS = sa.inspect(models.TrialIntermediateValueModel).local_table.c

_STATE = sa.select(_TRIALS.state).where(_TRIALS.trial_id == sa.bindparam("id"))
_ADD_PARAMETER = sa.insert(_PARAMS_TABLE)

_distribution = lru_cache(maxsize=4096)(json_to_distribution)


class Database(RDBStorage):
    """A database storage that reads trials and writes parameters faster than Optuna's own."""

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

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        """Write a parameter of a trial that runs, unless it is written already.

        Args:
            trial_id: id of the trial.
            param_name: name of the parameter.
            param_value_internal: its value, as the distribution represents it internally.
            distribution: its distribution.
            previous_distribution: the study's earlier distribution of that name; None if unknown.

        Raises:
            UpdateFinishedTrialError: if the trial has ended.
            KeyError: if there is no such trial.
            ValueError: if the two distributions are not compatible.
        """
        if previous_distribution is None:  # Optuna looks it up
            super()._set_trial_param(
                trial_id, param_name, param_value_internal, distribution, previous_distribution
            )
            return
        check_distribution_compatibility(previous_distribution, distribution)
        with self.engine.connect() as connection:
            state = connection.scalar(_STATE, {"id": trial_id})
            if state is None:
                raise KeyError(f"there is no trial with id {trial_id}")
            self.check_trial_is_updatable(trial_id, state)
            row = {
                "trial_id": trial_id,
                "param_name": param_name,
                "param_value": param_value_internal,
                "distribution_json": distribution_to_json(distribution),
            }
            with suppress(sa.exc.IntegrityError):  # a repeated call, after a lost connection
                connection.execute(_ADD_PARAMETER, row)
                connection.commit()


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
