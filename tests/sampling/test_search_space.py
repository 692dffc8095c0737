from collections.abc import Sequence

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.candidate import Candidate
from dse.config import GroupRule, SpaceConfig
from dse.errors import ConfigError
from dse.memory.channel_units import ModelGroup
from dse.sampling.search_space import RATIO, SearchSpace
from support.searches import memory_model

GROUPS = (
    ModelGroup("stem", 20, 1),
    ModelGroup("grouped", 32, 4),
    ModelGroup("wide", 96, 1),
)


def kept(space: SearchSpace, ratios: Sequence[float]) -> tuple[int, ...]:
    drawn = {RATIO + c.name: ratio for c, ratio in zip(space.choices, ratios, strict=True)}
    return space.candidate(drawn).kept(GROUPS)


@given(
    ratios=st.lists(st.floats(0, 0.95), min_size=3, max_size=3),
    multiple=st.integers(1, 9),
    floor=st.integers(1, 40),
)
def test_kept_channels_respect_multiple_floor_and_width(
    ratios: list[float], multiple: int, floor: int
) -> None:
    space = SearchSpace.resolve(
        SpaceConfig(
            ratio=(0.0, 0.95),
            multiple=multiple,
            floor=floor,
            group=(GroupRule(pattern="wide", floor=1, multiple=1),),
        ),
        GROUPS,
    )
    for choice, count in zip(space.choices, kept(space, ratios), strict=True):
        assert min(floor, choice.channels) <= count <= choice.channels or choice.name == "wide"
        if count < choice.channels:
            assert count % choice.multiple == 0


def test_more_pruning_never_keeps_more() -> None:
    space = SearchSpace.resolve(SpaceConfig(ratio=(0.0, 0.95), multiple=4), GROUPS)
    counts = [kept(space, [ratio / 100] * 3) for ratio in range(96)]
    assert all(a >= b for more, less in zip(counts, counts[1:]) for a, b in zip(more, less))  # noqa: B905, RUF007
    assert counts[-1] == space.smallest().kept(GROUPS)


def test_a_fixed_group_is_not_drawn_and_a_fixed_zero_leaves_it_whole() -> None:
    rules = (GroupRule(pattern="stem", fixed=0.0), GroupRule(pattern="wide", fixed=0.5))
    space = SearchSpace.resolve(SpaceConfig(ratio=(0.1, 0.9), multiple=8, group=rules), GROUPS)
    assert [choice.name for choice in space.free] == ["grouped"]
    assert space.names == {"ratio:grouped"}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    drawn = space.draw(trial)
    assert drawn == trial.params
    assert 0.1 <= drawn["ratio:grouped"] <= 0.9
    # 20 is no multiple of 8, yet nothing is taken from a group that is fixed at 0
    assert space.candidate(drawn).kept(GROUPS)[::2] == (20, 48)


def test_uniform_pruning_leaves_fixed_groups_alone_and_may_leave_the_range() -> None:
    rules = (GroupRule(pattern="stem", fixed=0.0),)
    space = SearchSpace.resolve(SpaceConfig(ratio=(0.0, 0.3), group=rules), GROUPS)
    assert space.uniform(0.5).kept(GROUPS) == (20, 16, 48)


def test_a_space_without_freedom_is_refused() -> None:
    with pytest.raises(ConfigError, match="'inline' fixes all 3 channel groups"):
        SearchSpace.resolve(SpaceConfig(ratio=(0.5, 0.5)), GROUPS)


def test_the_real_groups_of_a_network_fit() -> None:
    groups = memory_model().groups
    space = SearchSpace.resolve(SpaceConfig(ratio=(0.0, 0.9)), groups)
    assert space.candidate(dict.fromkeys(space.names, 0.0)) == Candidate(channels={})
    assert all(count >= 1 for count in space.smallest().kept(groups))
