"""Properties of every compiled memory model."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dse.memory.model import MemoryModel
from dse.memory.tape import CATEGORIES
from dse.pruning.groups import ChannelGroup, find_groups
from dse.pruning.resize import resized
from dse.step.settings import StepSettings
from support.networks import Residual, SqueezeExcite, concatenating
from support.traces import fresh_peak

SHAPE = (3, 12, 12)
NETWORKS: dict[str, nn.Module] = {
    "residual": Residual(),
    "concatenating": concatenating(SHAPE[-1]),
    "squeeze-excite": SqueezeExcite(),
}
SCHEMES = ("full", "last", "norm", "bias")
BATCHES = st.integers(1, 64)


@cache
def groups_of(name: str) -> tuple[ChannelGroup, ...]:
    return find_groups(NETWORKS[name], torch.zeros(1, *SHAPE))


@cache
def compiled(name: str, scheme: str, order: Sequence[int] | None = None) -> MemoryModel:
    groups = groups_of(name)
    chosen = groups if order is None else [groups[index] for index in order]
    return MemoryModel.compile(
        NETWORKS[name], torch.zeros(1, *SHAPE), scheme=scheme, optimizer="adam", groups=chosen
    )


@st.composite
def candidates(draw: st.DrawFn) -> tuple[str, str, list[int]]:
    """A network, a scheme, and channels kept in each group."""
    name, scheme = draw(st.sampled_from(list(NETWORKS))), draw(st.sampled_from(SCHEMES))
    kept = [
        draw(st.integers(1, group.channels // group.multiple)) * group.multiple
        for group in groups_of(name)
    ]
    return name, scheme, kept


@given(candidate=candidates(), batch_size=BATCHES)
def test_categories_add_up_to_the_peak_at_every_moment(
    candidate: tuple[str, str, list[int]], batch_size: int
) -> None:
    name, scheme, kept = candidate
    model = compiled(name, scheme)
    timeline = model.timeline(kept, batch_size=batch_size)
    breakdown = timeline.breakdown()
    assert tuple(breakdown.categories) == CATEGORIES
    assert (timeline.bytes >= 0).all()
    assert breakdown.peak_bytes == timeline.bytes.sum(axis=1).max()
    assert sum(breakdown.categories.values()) == breakdown.peak_bytes
    assert model.peaks(kept, batch_size=batch_size) == breakdown.peak_bytes


@given(candidate=candidates(), batch_size=BATCHES, data=st.data())
def test_the_peak_never_rises_when_channels_go(
    candidate: tuple[str, str, list[int]], batch_size: int, data: st.DataObject
) -> None:
    name, scheme, kept = candidate
    model = compiled(name, scheme)
    fewer = [
        data.draw(st.integers(1, count // group.multiple)) * group.multiple
        for count, group in zip(kept, model.groups, strict=True)
    ]
    before, after = model.peaks([kept, fewer], batch_size=batch_size)
    assert after <= before


@given(candidate=candidates(), batch_size=BATCHES)
@settings(max_examples=40)
def test_the_model_at_a_batch_size_equals_a_trace_at_that_batch_size(
    candidate: tuple[str, str, list[int]], batch_size: int
) -> None:
    name, scheme, kept = candidate
    pruned = resized(NETWORKS[name], groups_of(name), kept)
    step = StepSettings(optimizer="adam")
    expected = fresh_peak(pruned, (batch_size, *SHAPE), scheme=scheme, step=step)
    assert compiled(name, scheme).peaks(kept, batch_size=batch_size) == expected


@given(candidate=candidates(), batch_size=BATCHES, data=st.data())
def test_permuting_groups_changes_nothing(
    candidate: tuple[str, str, list[int]], batch_size: int, data: st.DataObject
) -> None:
    name, scheme, kept = candidate
    order = data.draw(st.permutations(range(len(kept))))
    model, permuted = compiled(name, scheme), compiled(name, scheme, tuple(order))
    moved = [kept[index] for index in order]
    assert [group.name for group in permuted.groups] == [model.groups[i].name for i in order]
    assert permuted.peaks(moved, batch_size=batch_size) == model.peaks(kept, batch_size=batch_size)
    assert permuted.parameter_bytes(moved) == model.parameter_bytes(kept)
    assert permuted.buffer_bytes(moved) == model.buffer_bytes(kept)
    assert permuted.macs_forward(moved) == model.macs_forward(kept)
    assert permuted.breakdown(moved, batch_size=batch_size) == model.breakdown(
        kept, batch_size=batch_size
    )
    peak, gradient = model.peak_and_gradient(kept, batch_size=batch_size)
    peak_permuted, gradient_permuted = permuted.peak_and_gradient(moved, batch_size=batch_size)
    assert peak_permuted == peak
    np.testing.assert_array_equal(gradient_permuted, gradient[order])


@given(candidate=candidates(), batch_size=BATCHES)
@settings(max_examples=50)
def test_the_gradient_is_the_slope_of_the_peak(
    candidate: tuple[str, str, list[int]], batch_size: int
) -> None:
    """Rows are convex along one unit where no product has a unit twice: compare by differences."""
    name, scheme, kept = candidate
    model = compiled(name, scheme)
    peak, gradient = model.peak_and_gradient(kept, batch_size=batch_size)
    assert peak == model.peaks(kept, batch_size=batch_size)
    assert (gradient >= 0).all()
    for index, group in enumerate(model.groups):
        if kept[index] + group.multiple <= group.channels:
            wider = list(kept)
            wider[index] += group.multiple
            rise = model.peaks(wider, batch_size=batch_size) - peak
            assert rise >= gradient[index] * group.multiple - 1e-6
