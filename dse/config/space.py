"""Search spaces: how many channels each channel group may lose."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Annotated, Protocol

from pydantic import Field, model_validator

from dse.config.base import Frozen, KeyedError
from dse.config.fields import AsTuple, Count, Ratio, RatioRange
from dse.config.joint import Joint
from dse.errors import ConfigError


class GroupRule(Frozen):
    """Settings for groups whose names match a pattern, in place of the space's own values.

    Attributes:
        pattern: shell-style pattern for whole group names (`*` also matches dots).
        ratio: lowest and highest pruning ratio.
        fixed: a pruning ratio that is not searched over.
        multiple: kept channels are a multiple of this.
        floor: minimum number of kept channels.
    """

    pattern: Annotated[str, Field(min_length=1)]
    ratio: RatioRange | None = None
    fixed: Ratio | None = None
    multiple: Count | None = None
    floor: Count | None = None

    @model_validator(mode="after")
    def _check_one(self) -> "GroupRule":
        if self.ratio is not None and self.fixed is not None:
            raise KeyedError("fixed", "stands beside ratio: take one of the two out")
        if {self.ratio, self.fixed, self.multiple, self.floor} == {None}:
            raise KeyedError("pattern", "changes nothing: add ratio, fixed, multiple or floor")
        return self


class SpaceConfig(Frozen):
    """A search space: the pruning ratios and channel counts of candidates.

    Attributes:
        name: name of the space.
        description: free text.
        ratio: lowest and highest pruning ratio of every group.
        multiple: kept channels are a multiple of this.
        floor: minimum number of kept channels.
        group: rules for groups by name; the first match applies.
        joint: parts of the recipe that vary; none if None. A study file that says nothing has the
            usual recipes (see `load_study`).
    """

    name: Annotated[str, Field(min_length=1)] = "inline"
    description: str = ""
    ratio: RatioRange
    multiple: Count = 1
    floor: Count = 1
    group: Annotated[tuple[GroupRule, ...], AsTuple] = ()
    joint: Joint = None


class NamedGroup(Protocol):
    """The properties of a channel group that search spaces and candidates use."""

    @property
    def name(self) -> str:
        """Name of the group's first executed module."""

    @property
    def channels(self) -> int:
        """Channels of the unpruned group."""

    @property
    def multiple(self) -> int:
        """Kept channels must be a multiple of this, for grouped convolutions."""


class LimitedGroup(NamedGroup, Protocol):
    """A group that a search space is applied to."""

    @property
    def fewest(self) -> int:
        """Minimum count of kept channels."""


@dataclass(frozen=True, kw_only=True)
class GroupChoice:
    """The choices for one channel group.

    Attributes:
        name: name of the group.
        channels: channels of the unpruned group.
        low: lowest pruning ratio.
        high: highest pruning ratio.
        multiple: kept channels are a multiple of this, the lcm of the rule's and the group's own.
        floor: minimum number of kept channels, a multiple itself and at most `channels`.
        fixed: the only ratio, if there is no choice; else None.
    """

    name: str
    channels: int
    low: float
    high: float
    multiple: int
    floor: int
    fixed: float | None


def resolve_space(space: SpaceConfig, groups: Sequence[LimitedGroup]) -> tuple[GroupChoice, ...]:
    """Apply a search space to the channel groups of a network.

    Returns:
        One choice per group, in the order of `groups`.

    Raises:
        ConfigError: if a pattern matches no group, or only groups that an earlier pattern matched.
    """
    names = [group.name for group in groups]
    taken: set[str] = set()
    for number, rule in enumerate(space.group):
        matched = {name for name in names if fnmatchcase(name, rule.pattern)}
        place = f"search space {space.name!r}: group[{number}].pattern = {rule.pattern!r}"
        if not matched:
            near = get_close_matches(rule.pattern, names, n=3, cutoff=0.0)
            raise ConfigError(
                f"{place}: matches no channel group of the network; "
                f"the nearest are {', '.join(near)}"
            )
        if matched <= taken:
            raise ConfigError(
                f"{place}: every group it matches is taken by an earlier pattern: move it up"
            )
        taken |= matched
    return tuple(_choice(space, group) for group in groups)


def _choice(space: SpaceConfig, group: LimitedGroup) -> GroupChoice:
    rule = next(
        (rule for rule in space.group if fnmatchcase(group.name, rule.pattern)),
        GroupRule(pattern="*", ratio=space.ratio),
    )
    multiple = math.lcm(rule.multiple or space.multiple, group.multiple)
    floor = math.ceil(max(rule.floor or space.floor, group.fewest) / multiple) * multiple
    low, high = rule.ratio or space.ratio
    fixed = rule.fixed
    if fixed is None and low == high:
        fixed = low
    if floor >= group.channels:  # no channel can be removed
        fixed = 0.0
    if fixed is not None:
        low = high = fixed
    return GroupChoice(
        name=group.name,
        channels=group.channels,
        low=low,
        high=high,
        multiple=multiple,
        floor=min(floor, group.channels),
        fixed=fixed,
    )
