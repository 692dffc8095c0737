import re
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.config import GroupChoice, GroupRule, SpaceConfig, resolve_space
from dse.errors import ConfigError


@dataclass(frozen=True)
class Group:
    name: str
    channels: int = 64
    multiple: int = 1
    fewest: int = 1


GROUPS = (Group("stem", 32), Group("block.0.conv1"), Group("block.0.conv2"), Group("last", 1280))


def space(*rules: GroupRule, multiple: int = 8, floor: int = 8) -> SpaceConfig:
    return SpaceConfig(ratio=(0.0, 0.9), multiple=multiple, floor=floor, group=rules)


def test_without_rules_all_groups_are_alike() -> None:
    choices = resolve_space(space(), GROUPS)
    assert [choice.name for choice in choices] == [group.name for group in GROUPS]
    assert choices[0] == GroupChoice(
        name="stem", channels=32, low=0.0, high=0.9, multiple=8, floor=8, fixed=None
    )


def test_the_first_rule_that_matches_counts_and_leaves_the_rest_to_the_space() -> None:
    rules = (
        GroupRule(pattern="block.0.conv1", ratio=(0.1, 0.2)),
        GroupRule(pattern="block.*", fixed=0.5, multiple=4),
        GroupRule(pattern="last", floor=100),
    )
    stem, first, second, last = resolve_space(space(*rules), GROUPS)
    assert (first.low, first.high, first.multiple, first.fixed) == (0.1, 0.2, 8, None)
    assert (second.low, second.high, second.multiple, second.floor, second.fixed) == (
        0.5,
        0.5,
        4,
        8,
        0.5,
    )
    assert (last.low, last.high, last.floor) == (0.0, 0.9, 104)
    assert (stem.low, stem.high) == (0.0, 0.9)


def test_multiples_are_joined_with_those_that_grouped_convolutions_force() -> None:
    (choice,) = resolve_space(space(multiple=8), [Group("grouped", channels=192, multiple=12)])
    assert choice.multiple == 24
    assert choice.floor == 24


def test_a_group_that_can_lose_no_channel_is_fixed() -> None:
    (choice,) = resolve_space(space(), [Group("narrow", channels=6)])
    assert (choice.fixed, choice.low, choice.high, choice.floor) == (0.0, 0.0, 0.0, 6)


def test_a_range_of_one_ratio_is_fixed() -> None:
    (choice,) = resolve_space(space(GroupRule(pattern="*", ratio=(0.5, 0.5))), [Group("one")])
    assert choice.fixed == 0.5


@pytest.mark.parametrize("pattern", ["block.0.conv3", "Stem", "lst"])
def test_a_pattern_without_match_is_refused_with_the_nearest_names(pattern: str) -> None:
    rule = GroupRule(pattern=pattern, fixed=0.0)
    with pytest.raises(ConfigError, match=re.escape(f"group[1].pattern = '{pattern}'")) as caught:
        resolve_space(space(GroupRule(pattern="last", fixed=0.1), rule), GROUPS)
    assert "matches no channel group of the network; the nearest are" in str(caught.value)


def test_a_rule_that_never_counts_is_refused() -> None:
    rules = (GroupRule(pattern="block.*", fixed=0.1), GroupRule(pattern="*conv1", fixed=0.2))
    with pytest.raises(ConfigError, match="taken by an earlier pattern: move it up"):
        resolve_space(space(*rules), GROUPS)


@given(
    multiple=st.integers(1, 64),
    floor=st.integers(1, 200),
    own=st.sampled_from([1, 2, 3, 8, 32]),
    times=st.integers(1, 40),
)
def test_floors_are_valid_channel_counts(multiple: int, floor: int, own: int, times: int) -> None:
    group = Group("any", channels=own * times, multiple=own)
    (choice,) = resolve_space(space(multiple=multiple, floor=floor), [group])
    assert choice.multiple % own == 0
    assert choice.multiple % multiple == 0
    assert 1 <= choice.floor <= group.channels
    assert choice.floor % own == 0
    assert choice.floor >= min(floor, group.channels)
