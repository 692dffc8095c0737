import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.config.space import SpaceConfig, resolve_space
from dse.errors import InfeasibleError, MemoryModelError, PruningError
from dse.memory.model import MemoryModel
from dse.methods.greedy import Limits, limits_of, peak_greedy
from support.networks import Residual, SqueezeExcite

IMAGE = torch.zeros(2, 3, 12, 12)
MODELS = [
    MemoryModel.compile(network, IMAGE, scheme=scheme)
    for network in (Residual(), SqueezeExcite())
    for scheme in ("full", "last")
]
MODEL = MODELS[0]


def free(model: MemoryModel) -> list[Limits]:
    return [Limits(g.channels, g.multiple, g.multiple) for g in model.groups]


@st.composite
def some_limits(draw: st.DrawFn, model: MemoryModel) -> list[Limits]:
    limits = []
    for group in model.groups:
        units = group.channels // group.multiple
        most = draw(st.integers(1, units))
        fewest = draw(st.integers(1, most))
        limits.append(Limits(most * group.multiple, fewest * group.multiple, group.multiple))
    return limits


@given(data=st.data(), model=st.sampled_from(MODELS), batch_size=st.integers(1, 9))
@settings(max_examples=40)
def test_memory_never_rises_along_the_trajectory(
    data: st.DataObject, model: MemoryModel, batch_size: int
) -> None:
    limits = data.draw(some_limits(model))
    found = peak_greedy(model, batch_size=batch_size, limits=limits)
    assert found.channels[0].tolist() == [limit.most for limit in limits]
    np.testing.assert_array_equal(
        found.peak_bytes, model.peaks(found.channels, batch_size=batch_size)
    )
    assert (np.diff(found.peak_bytes) <= 0).all()
    taken = -np.diff(found.channels, axis=0)
    assert ((taken > 0).sum(axis=1) == 1).all()
    assert (taken >= 0).all()
    curve = found.peak_bytes[found.corners]
    assert found.corners[0] == 0
    assert (np.diff(curve) < 0).all()
    assert curve[-1] == found.peak_bytes[-1]


@given(data=st.data(), model=st.sampled_from(MODELS))
@settings(max_examples=20)
def test_it_ends_where_no_group_at_the_peak_can_lose_more(
    data: st.DataObject, model: MemoryModel
) -> None:
    limits = data.draw(some_limits(model))
    last = peak_greedy(model, batch_size=4, limits=limits).channels[-1]
    peak, gradient = model.peak_and_gradient(last, batch_size=4)
    for group, limit in enumerate(limits):
        if gradient[group] > 0:
            assert last[group] == limit.fewest
    smallest = [limit.fewest for limit in limits]
    assert model.peaks(smallest, batch_size=4) == peak


def test_the_group_that_carries_most_loses_first() -> None:
    full = [group.channels for group in MODEL.groups]
    _, gradient = MODEL.peak_and_gradient(full, batch_size=8)
    found = peak_greedy(MODEL, batch_size=8, limits=free(MODEL))
    carried = np.array(full) * gradient
    (changed,) = np.flatnonzero(found.channels[0] != found.channels[1])
    assert changed == carried.argmax()
    assert found.channels[1][changed] == full[changed] - 1


def test_a_budget_cuts_the_same_trajectory_short() -> None:
    whole = peak_greedy(MODEL, batch_size=8, limits=free(MODEL))
    budget = int(whole.peak_bytes[len(whole.peak_bytes) // 2])
    part = peak_greedy(MODEL, batch_size=8, limits=free(MODEL), budget_bytes=budget)
    end = whole.first_within(budget)
    np.testing.assert_array_equal(part.channels, whole.channels[: end + 1])
    assert part.peak_bytes[-1] <= budget < part.peak_bytes[-2]
    with pytest.raises(InfeasibleError, match="peak-greedy reaches"):
        whole.first_within(1)


def test_a_search_space_says_how_far_groups_may_go() -> None:
    space = SpaceConfig.model_validate(
        {
            "ratio": [0.0, 0.5],
            "floor": 3,
            "group": [{"pattern": MODEL.groups[0].name, "fixed": 0.25}],
        }
    )
    limits = limits_of(resolve_space(space, MODEL.groups))
    fixed, other = MODEL.groups[0], MODEL.groups[1]
    assert limits[0] == Limits(fixed.channels * 3 // 4, fixed.channels * 3 // 4)
    assert limits[1] == Limits(other.channels, other.channels // 2)
    assert Limits(10, 4, 4).next_below(10) == 8
    assert Limits(10, 4, 4).next_below(8) == 4
    assert Limits(10, 4, 4).next_below(4) is None


def test_wrong_limits_are_refused() -> None:
    with pytest.raises(PruningError, match="1 limits for 2 channel groups"):
        peak_greedy(MODEL, batch_size=8, limits=free(MODEL)[:1])
    with pytest.raises(MemoryModelError, match="can't keep 99 channels"):
        peak_greedy(MODEL, batch_size=8, limits=[Limits(99, 1), *free(MODEL)[1:]])
