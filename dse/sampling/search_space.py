"""The search space, and the candidates that a sampler's draws become."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from dse.candidate import Candidate, kept_channels
from dse.config import GroupChoice, SpaceConfig, resolve_space
from dse.config.space import LimitedGroup
from dse.errors import ConfigError
from dse.names import WHOLE_DEPTH, dropped
from dse.results.varied import ValueRange, Varied
from dse.sampling.joint import JointChoice, JointRange, Value, rounded

RATIO = "ratio:"
_ROUNDING = 0.006  # logarithms of values that are rounded to three digits


@dataclass(frozen=True)
class SearchSpace:
    """What may vary: the pruning ratio of each free channel group, and optionally the recipe.

    Attributes:
        choices: One choice for each channel group, in execution order.
        joint: Dimensions of the recipe that have single values.
        ranges: Dimensions of the recipe that vary continuously.
    """

    choices: tuple[GroupChoice, ...]
    joint: tuple[JointChoice, ...] = ()
    ranges: tuple[JointRange, ...] = ()

    @classmethod
    def resolve(
        cls,
        config: SpaceConfig,
        groups: Sequence[LimitedGroup],
        *,
        joint: tuple[JointChoice, ...] = (),
        ranges: tuple[JointRange, ...] = (),
    ) -> "SearchSpace":
        """Apply a search space's rules to the channel groups of a network.

        Args:
            config: The study's ``[space]``.
            groups: Channel groups of the network.
            joint: Dimensions of the recipe with single values (see `dse.sampling.joint`).
            ranges: Dimensions of the recipe that vary continuously.

        Raises:
            ConfigError: If a pattern matches no group, or every group is fixed.
        """
        space = cls(resolve_space(config, groups), joint, ranges)
        if not space.free:
            raise ConfigError(
                f"search space {config.name!r} fixes all {len(space.choices)} channel groups, so "
                "there is nothing to search; widen space.ratio or lower space.floor"
            )
        return space

    @cached_property
    def free(self) -> tuple[GroupChoice, ...]:
        """The groups whose ratio varies."""
        return tuple(choice for choice in self.choices if choice.fixed is None)

    @cached_property
    def ladders(self) -> tuple[tuple[int, ...], ...]:
        """For each group, the counts that it may keep, ascending. A fixed group has one count."""
        return tuple(map(_ladder, self.choices))

    @cached_property
    def varied(self) -> dict[str, Varied]:
        """Values of each part of the recipe that varies, by name."""
        listed: dict[str, Varied] = {one.name: one.values for one in self.joint}
        ranges = {one.name: ValueRange(low=one.low, high=one.high) for one in self.ranges}
        return listed | ranges

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of all parameters of a draw."""
        return frozenset(self.distributions)

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Distribution of each parameter of a draw, by name."""
        ratios: dict[str, BaseDistribution] = {
            RATIO + choice.name: FloatDistribution(choice.low, choice.high) for choice in self.free
        }
        recipe: dict[str, BaseDistribution] = {
            one.name: CategoricalDistribution(one.values) for one in self.joint
        }
        return (
            ratios
            | recipe
            | {one.name: FloatDistribution(one.low, one.high, log=True) for one in self.ranges}
        )

    @cached_property
    def recipes(self) -> tuple[Candidate, ...]:
        """Every recipe as a candidate without channels, with the study's own first."""
        return tuple(Candidate(**self._fields(places)) for places in self.recipe_indices.tolist())

    @cached_property
    def lean_recipes(self) -> tuple[Candidate, ...]:
        """Recipes among which the lowest peak should be.

        They have the smallest images and the fewest blocks, train the output layer alone and plan
        for the least memory, as far as the space holds these. A smaller batch need not lower the
        peak, because the gradients stay in memory while batches are accumulated.
        """
        wanted = {"scheme": "last", "engine": "lean:least", "optimizer": "sgd"}
        held = {one.name: one.values for one in self.joint}
        found = {key: value for key, value in wanted.items() if value in held.get(key, ())}
        return self._recipes_with(
            {
                "image_size": min,
                "drop": partial(max, key=_blocks_left_out),
                **{key: partial(_always, value) for key, value in found.items()},
            }
        )

    @cached_property
    def rich_recipes(self) -> tuple[Candidate, ...]:
        """Recipes with the largest images and least checkpointing, among them the highest peak.

        They train everything on stock PyTorch, where the space holds that.
        """
        wanted = {"scheme": "full", "engine": "stock"}
        held = {one.name: one.values for one in self.joint}
        found = {key: value for key, value in wanted.items() if value in held.get(key, ())}
        return self._recipes_with(
            {
                "image_size": max,
                "drop": partial(min, key=_blocks_left_out),
                "checkpointing": _least_checkpointed,
                **{key: partial(_always, value) for key, value in found.items()},
            }
        )

    @cached_property
    def recipe_indices(self) -> NDArray[np.int64]:
        """For each recipe, the index of its value in each dimension: (recipes, dimensions)."""
        every = product(*(range(len(one.values)) for one in self.joint))
        places = [found for found in every if not _excluded(self._fields(found))]
        return np.array(places, dtype=np.int64).reshape(len(places), len(self.joint))

    @cached_property
    def features(self) -> NDArray[np.float64]:
        """Features of the recipes for a surrogate, shape (recipes, features).

        A dimension has its own features, if it comes with some. Else a numeric dimension becomes
        the logarithm of its ratio to the study's value, and any other is one-hot encoded without
        the study's value. The study's own recipe is all zeros.
        """
        columns: list[list[float]] = []
        for one, places in zip(self.joint, self.recipe_indices.T, strict=True):
            if one.features is not None:
                columns += [
                    [column[place] for place in places]
                    for column in zip(*one.features, strict=True)
                ]
            elif all(type(value) in (int, float) for value in one.values):
                logs = [math.log(float(value) / float(one.values[0])) for value in one.values]
                columns.append([logs[place] for place in places])
            else:
                columns += [
                    [float(place == index) for place in places]
                    for index in range(1, len(one.values))
                ]
        return np.array(columns, dtype=np.float64).T.reshape(len(self.recipe_indices), len(columns))

    @cached_property
    def limits(self) -> NDArray[np.float64]:
        """Lowest and highest logarithm of each continuous value over the own, (ranges, 2)."""
        logs = [(math.log(one.low / one.own), math.log(one.high / one.own)) for one in self.ranges]
        return np.array(logs, dtype=np.float64).reshape(len(logs), 2)

    def recipe_number(self, candidate: Candidate) -> int | None:
        """Return the number of a candidate's recipe, or None if it is outside the space."""
        number = self._numbers.get(self._key(candidate))
        if number is None:
            return None
        shifts = self._shifts(candidate, number)
        inside = all(
            low - _ROUNDING <= shift <= high + _ROUNDING
            for (low, high), shift in zip(self.limits.tolist(), shifts, strict=True)
        )
        return number if inside else None

    def shifts(self, candidate: Candidate) -> tuple[float, ...]:
        """Return the logarithms of a candidate's continuous values over its recipe's own.

        Args:
            candidate: A candidate whose recipe is in the space.
        """
        return self._shifts(candidate, self._numbers[self._key(candidate)])

    def _shifts(self, candidate: Candidate, number: int) -> tuple[float, ...]:
        recipe = self.recipes[number]
        found = []
        for one in self.ranges:
            own = getattr(recipe, one.name) or one.own
            found.append(math.log((getattr(candidate, one.name) or own) / own))
        return tuple(found)

    def _key(self, candidate: Candidate) -> str:
        """Return what tells recipes apart, apart from what varies continuously."""
        continuous = dict.fromkeys(one.name for one in self.ranges)
        return candidate.recipe.model_copy(update=continuous).canonical_json()

    def _fields(self, places: Sequence[int]) -> dict[str, Any]:
        """Return the candidate fields that values of all dimensions set."""
        changes = (one.changes[place] for one, place in zip(self.joint, places, strict=True))
        return {key: value for found in changes for key, value in found.items()}

    def _recipes_with(
        self, choices: Mapping[str, Callable[[Sequence[Any]], Any]]
    ) -> tuple[Candidate, ...]:
        """Return the recipes whose named dimensions have the value that a function selects."""
        wanted = {
            place: one.values.index(choices[one.name](one.values))
            for place, one in enumerate(self.joint)
            if one.name in choices
        }
        return tuple(
            recipe
            for recipe, indices in zip(self.recipes, self.recipe_indices, strict=True)
            if all(indices[place] == value for place, value in wanted.items())
        )

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {self._key(recipe): index for index, recipe in enumerate(self.recipes)}

    def draw(self, trial: optuna.Trial) -> dict[str, Value]:
        """Let the sampler choose a ratio for each free group, and a recipe if recipes vary."""
        ratios: dict[str, Value] = {
            RATIO + choice.name: trial.suggest_float(RATIO + choice.name, choice.low, choice.high)
            for choice in self.free
        }
        recipe: dict[str, Any] = {
            one.name: trial.suggest_categorical(one.name, one.values) for one in self.joint
        }
        shifts = {
            one.name: trial.suggest_float(one.name, one.low, one.high, log=True)
            for one in self.ranges
        }
        return ratios | recipe | shifts

    def candidate(self, drawn: Mapping[str, Any]) -> Candidate:
        """Return the candidate of a draw, rounded to each group's multiple and floor."""
        pruned = self._candidate([drawn.get(RATIO + choice.name) for choice in self.choices])
        return self.pruned(self.recipe(drawn), pruned.channels)

    def pruned(self, recipe: Candidate, channels: Mapping[str, int]) -> Candidate:
        """Return a recipe's candidate with other channels; groups that it lacks have none.

        Args:
            recipe: A candidate of the space.
            channels: Kept channels by group name, for groups that keep fewer than all.
        """
        gone = self._gone.get(recipe.drop, frozenset())
        left = {name: count for name, count in channels.items() if name not in gone}
        return recipe.with_channels(left)

    @cached_property
    def _gone(self) -> dict[str | None, frozenset[str]]:
        return {
            change.get("drop"): gone
            for one in self.joint
            for change, gone in zip(one.changes, one.gone, strict=False)
        }

    def recipe(self, drawn: Mapping[str, Any]) -> Candidate:
        """Return the recipe of a draw. Dimensions that were not drawn keep the study's value.

        A lean engine that was drawn together with checkpointing runs without it.
        """
        places = [one.values.index(drawn.get(one.name, one.values[0])) for one in self.joint]
        fields = self._fields(places)
        if _excluded(fields):
            del fields["checkpointing"]
        for one in self.ranges:
            own = fields.get(one.name, one.own)
            value = rounded(own * drawn.get(one.name, one.own) / one.own)
            if value != rounded(own):
                fields[one.name] = value
        return Candidate(**fields)

    def uniform(self, ratio: float) -> Candidate:
        """Prune every free group by the same ratio, which may lie outside the group's range."""
        return self._candidate([ratio] * len(self.choices))

    def smallest(self) -> Candidate:
        """Prune every group as far as the space allows."""
        return self._candidate([choice.high for choice in self.choices])

    def shares(self, drawn: Mapping[str, Any]) -> tuple[float, ...]:
        """Return the share of channels that a draw keeps in each group, before rounding."""
        return tuple(
            1 - (drawn[RATIO + choice.name] if choice.fixed is None else choice.fixed)
            for choice in self.choices
        )

    def parameters(
        self, kept: Sequence[int], *, recipe: int = 0, shifts: Sequence[float] = ()
    ) -> dict[str, Value]:
        """Return the parameters of a draw that rounds to the given channels.

        Args:
            kept: Channels of each group, each a count of its ladder.
            recipe: Number of the recipe.
            shifts: Logarithms of the continuous values over the recipe's own; its own if empty.
        """
        ratios: dict[str, Value] = {
            RATIO + choice.name: min(choice.high, max(choice.low, 1 - count / choice.channels))
            for choice, count in zip(self.choices, kept, strict=True)
            if choice.fixed is None
        }
        continuous: dict[str, Value] = {
            one.name: min(one.high, max(one.low, one.own * math.exp(shift)))
            for one, shift in zip(self.ranges, shifts or (0.0,) * len(self.ranges), strict=True)
        }
        return (
            ratios
            | {
                one.name: one.values[place]
                for one, place in zip(self.joint, self.recipe_indices[recipe], strict=True)
            }
            | continuous
        )

    def _candidate(self, ratios: Sequence[float | None]) -> Candidate:
        kept = [
            kept_channels(
                choice.channels,
                choice.fixed if choice.fixed is not None else ratio or 0.0,
                multiple=choice.multiple,
                floor=choice.floor,
            )
            for choice, ratio in zip(self.choices, ratios, strict=True)
        ]
        return Candidate.from_kept(self.choices, kept)


def _blocks_left_out(value: str) -> int:
    return 0 if value == WHOLE_DEPTH else len(dropped(value))


def _excluded(fields: Mapping[str, Any]) -> bool:
    """Whether a recipe checkpoints a lean step: checkpointing belongs to stock PyTorch."""
    lean: bool = fields.get("engine", "stock") != "stock"
    checkpointed: bool = fields.get("checkpointing", "none") != "none"
    return lean and checkpointed


def _ladder(choice: GroupChoice) -> tuple[int, ...]:
    fewest, most = (
        kept_channels(choice.channels, ratio, multiple=choice.multiple, floor=choice.floor)
        for ratio in (choice.high, choice.low)
    )
    between = range((fewest // choice.multiple + 1) * choice.multiple, most, choice.multiple)
    return (fewest, *between, most) if fewest < most else (fewest,)


def _always(value: Value, _values: Sequence[Value]) -> Value:
    return value


def _least_checkpointed(values: Sequence[str]) -> str:
    return "none" if "none" in values else values[0]
