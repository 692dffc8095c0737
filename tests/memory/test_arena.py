"""Arenas of real tapes: nothing overlaps, the bound holds, and a sheet of paper agrees."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dse.errors import MemoryModelError
from dse.memory.arena import (
    ArenaLayout,
    Placement,
    arena_layout,
    arena_placement,
)
from dse.memory.folding import in_place_results
from dse.memory.model import MemoryModel
from dse.memory.tape import Event
from support.networks import Residual, SqueezeExcite, concatenating

SIZE = 12


def compiled(network: nn.Module, mode: str, scheme: str = "full") -> MemoryModel:
    torch.manual_seed(0)
    return MemoryModel.compile(network, torch.zeros(1, 3, SIZE, SIZE), mode=mode, scheme=scheme)


MODELS = {
    ("residual", "training"): compiled(Residual(), "training"),
    ("residual", "inference"): compiled(Residual(), "inference"),
    ("residual", "norm"): compiled(Residual(), "training", "norm"),
    ("concatenating", "training"): compiled(concatenating(SIZE), "training"),
    ("squeeze-excite", "training"): compiled(SqueezeExcite(), "training"),
    ("squeeze-excite", "inference"): compiled(SqueezeExcite(), "inference"),
}
LAYOUTS = {
    (*name, bits, in_place): arena_layout(model.tape, element_bits=bits, in_place=in_place)
    for name, model in MODELS.items()
    for bits in (8, 32)
    for in_place in (True, False)
}


def full_units(model: MemoryModel) -> list[int]:
    return [group.channels // group.multiple for group in model.groups]


def lives(layout: ArenaLayout) -> list[tuple[int, int]]:
    """First and last position in the tape of each block: no moments involved."""
    events = layout.tape.events[:, :2].tolist()
    last = len(events)
    return [
        (
            events.index([Event.BIRTH, block.buffers[0]]),
            events.index([Event.DEATH, block.buffers[-1]])
            if [Event.DEATH, block.buffers[-1]] in events
            else last,
        )
        for block in layout.blocks
    ]


def replayed_bound(model: MemoryModel, units: Sequence[int], batch_size: int) -> int:
    """The most aligned bytes alive, adding and subtracting buffer by buffer."""
    tape = model.tape
    sizes = tape.terms_at(np.array(units), batch_size)[tape.buffer_terms]
    held = peak = 0
    for kind, buffer, _ in tape.events.tolist():
        aligned = -(-int(sizes[buffer]) // 16) * 16
        held += {Event.BIRTH: aligned, Event.DEATH: -aligned}.get(kind, 0)
        peak = max(peak, held)
    return peak


def check(layout: ArenaLayout, placement: Placement) -> None:
    spans = lives(layout)
    ends = placement.offset_bytes + placement.size_bytes
    assert (placement.offset_bytes % 16 == 0).all()
    assert placement.offset_bytes.min() >= placement.resident_bytes
    assert placement.arena_bytes == ends.max()
    assert placement.arena_bytes >= placement.lower_bound_bytes
    for i, (born, dies) in enumerate(spans):
        for j in range(i):
            if born < spans[j][1] and spans[j][0] < dies:
                assert ends[i] <= placement.offset_bytes[j] or ends[j] <= placement.offset_bytes[i]


@given(data=st.data(), batch_size=st.integers(1, 16))
@settings(max_examples=60, deadline=None)
def test_no_two_blocks_overlap_in_time_and_space(data: st.DataObject, batch_size: int) -> None:
    name = data.draw(st.sampled_from(sorted(LAYOUTS)))
    units = data.draw(st.tuples(*(st.integers(1, n) for n in full_units(MODELS[name[:2]]))))
    layout = LAYOUTS[name]
    check(layout, arena_placement(layout, units, batch_size=batch_size))


@pytest.mark.parametrize("name", MODELS)
def test_the_lower_bound_is_the_tapes_peak_where_nothing_is_folded(name: tuple[str, str]) -> None:
    model, layout = MODELS[name], LAYOUTS[*name, 32, False]
    rng = np.random.default_rng(0)
    for batch_size in (1, 8):
        units = [int(rng.integers(1, count + 1)) for count in full_units(model)]
        bound = arena_placement(layout, units, batch_size=batch_size).lower_bound_bytes
        assert bound == replayed_bound(model, units, batch_size)
        channels = [u * g.multiple for u, g in zip(units, model.groups, strict=True)]
        peak = int(model.peaks(channels, batch_size=batch_size))
        assert peak <= bound <= peak + 15 * len(model.tape.buffer_terms)


def test_an_arena_small_enough_for_a_sheet_of_paper() -> None:
    """Two linear layers, 4 -> 3 -> 2 without biases, inference on 50 images of 4 numbers.

    Resident: weights of 48 and 24 bytes, the latter rounded up to 32, and the input's 800.
    The hidden layer has 600 bytes, rounded up to 608; ReLU's result takes its place, or needs as
    much again. The output's 400 bytes come above the hidden layer; by then the place of what went
    into ReLU is free, so without folding ReLU's moment counts: 2 * 608 > 608 + 400.
    """
    network = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    model = MemoryModel.compile(network, torch.zeros(1, 4), mode="inference")
    folded = arena_placement(arena_layout(model.tape), [3], batch_size=50)
    assert folded.resident_bytes == 48 + 32 + 800
    assert folded.size_bytes.tolist() == [608, 400]
    assert folded.offset_bytes.tolist() == [880, 880 + 608]
    assert folded.arena_bytes == folded.lower_bound_bytes == 880 + 1008
    unfolded = arena_placement(arena_layout(model.tape, in_place=False), [3], batch_size=50)
    assert unfolded.arena_bytes == 880 + 2 * 608
    eighth = arena_placement(arena_layout(model.tape, element_bits=8), [3], batch_size=50)
    assert eighth.resident_bytes == 16 + 16 + 208
    assert eighth.size_bytes.tolist() == [160, 112]
    flash = arena_layout(model.tape, elsewhere=("weights",))
    assert arena_placement(flash, [3], batch_size=50).arena_bytes == 800 + 1008


def test_labels_keep_their_size_whatever_the_precision() -> None:
    network = nn.Sequential(nn.Linear(4, 2, bias=False))
    model = MemoryModel.compile(network, torch.zeros(1, 4), optimizer="sgd", groups=())
    resident = [
        arena_placement(
            arena_layout(model.tape, element_bits=bits), [], batch_size=64
        ).resident_bytes
        for bits in (32, 16, 8)
    ]
    assert resident == [32 + 4 * 4 * 64 + 512, 16 + 2 * 4 * 64 + 512, 16 + 4 * 64 + 512]


def chains(network: nn.Module, mode: str) -> list[list[str]]:
    """Operators whose results share a block of several buffers."""
    model = MemoryModel.compile(network, torch.zeros(1, 3, SIZE, SIZE), mode=mode, groups=())
    tape = model.tape
    born = {
        buffer: tape.sites[site].operator.removeprefix("aten::")
        for kind, buffer, site in tape.events.tolist()
        if kind == Event.BIRTH
    }
    layout = arena_layout(tape)
    return [[born[b] for b in block.buffers] for block in layout.blocks if len(block.buffers) > 1]


def test_elementwise_results_take_the_place_of_what_dies() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.SiLU()
    )
    assert chains(network, "inference") == [
        ["convolution", "native_batch_norm", "relu"],
        ["convolution", "silu"],
    ]


def test_what_is_saved_keeps_its_place() -> None:
    """Training, SiLU's and the norm's input are needed again; gradients pass in place."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(400, 2)
    )
    forward = {"convolution", "native_batch_norm", "silu", "addmm"}
    found = chains(network, "training")
    assert not any(forward & set(chain) for chain in found)
    assert ["mm", "silu_backward", "native_batch_norm_backward"] in found


class ReadAgain(nn.Module):
    """What goes into the sigmoid is changed in place, and thrown away, after the sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.conv(images)
        gate = torch.sigmoid(features)
        features.add_(1)
        del features
        return gate.mean((2, 3))


def test_an_input_that_is_used_once_more_keeps_its_place() -> None:
    assert chains(ReadAgain(), "inference") == []


@pytest.mark.parametrize("name", MODELS)
def test_what_is_folded_dies_before_anything_else_is_born(name: tuple[str, str]) -> None:
    tape = MODELS[name].tape
    events = tape.events[:, :2].tolist()
    folded = in_place_results(tape)
    assert folded
    assert len(set(folded.values())) == len(folded)
    for result, dying in folded.items():
        born, dies = events.index([Event.BIRTH, result]), events.index([Event.DEATH, dying])
        assert events.index([Event.BIRTH, dying]) < born < dies
        sites = {tape.sites[site].operator for site in tape.events[born : dies + 1, 2]}
        assert len(sites) == 1
        assert tape.buffer_terms[result] == tape.buffer_terms[dying]


def test_wrong_input_is_named() -> None:
    layout = LAYOUTS["residual", "training", 32, True]
    full = full_units(MODELS["residual", "training"])
    with pytest.raises(MemoryModelError, match="element_bits must be one of 8, 16, 32, not 4"):
        arena_layout(layout.tape, element_bits=4)
    with pytest.raises(MemoryModelError, match="unknown category 'flash'"):
        arena_layout(layout.tape, elsewhere=("flash",))
    with pytest.raises(MemoryModelError, match="one a group"):
        arena_placement(layout, full[:-1], batch_size=1)
    with pytest.raises(MemoryModelError, match="whole numbers"):
        arena_placement(layout, [count + 0.5 for count in full], batch_size=1)
    with pytest.raises(MemoryModelError, match="units must be at least 1, not 0"):
        arena_placement(layout, [0 for _ in full], batch_size=1)
    with pytest.raises(MemoryModelError, match="batch_size must be at least 1, not 0"):
        arena_placement(layout, full, batch_size=0)
