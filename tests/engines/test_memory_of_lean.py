"""The memory model and real steps of lean networks."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from dse.engines.plan import Level
from dse.memory.measure import measure_peak
from dse.memory.model import MemoryModel
from dse.memory.probed import probed_timeline
from dse.pruning.groups import find_groups
from dse.pruning.resize import resized
from dse.step.settings import StepSettings
from support import networks
from support.lean import lean_copy


def _inverted() -> nn.Module:
    return models.MobileNetV2(3, 0.25, inverted_residual_setting=[[1, 16, 1, 2], [4, 24, 2, 2]])


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "inverted": _inverted,
    "gated": networks.SqueezeExcite,
    "residual": networks.Residual,
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("level", ["lean", "recomputed", "chunked"])
def test_the_allocator_holds_what_the_model_predicts(name: str, level: Level) -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(4, 3, 24, 24), torch.arange(4) % 3
    network = lean_copy(NETWORKS[name](), images, level, 2)
    settings = StepSettings()
    timeline = probed_timeline(network, images, batch_size=4, settings=settings)
    measured = measure_peak(copy.deepcopy(network), images, labels, settings=settings)
    assert timeline.breakdown().peak_bytes == measured.peak_bytes


@pytest.mark.parametrize("scheme", ["full", "bias", "last"])
@pytest.mark.parametrize("level", ["lean", "recomputed"])
def test_one_model_holds_at_every_width(scheme: str, level: Level) -> None:
    images = torch.zeros(2, 3, 16, 16)
    network = networks.Residual()
    groups = find_groups(network, images)
    found = lean_copy(network, images, level)
    model = MemoryModel.compile(found, images, scheme=scheme)
    channels = [max(1, group.channels // 2) for group in groups]
    pruned = found.on(resized(network, groups, channels))
    own = MemoryModel.compile(pruned, images, scheme=scheme, groups=())
    for batch_size in (2, 5):
        assert model.peaks(channels, batch_size=batch_size) == own.peaks([], batch_size=batch_size)


@pytest.mark.parametrize("chunks", [2, 8])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("level", ["chunked", "lean"])
def test_one_model_of_chunks_holds_at_every_width(level: Level, name: str, chunks: int) -> None:
    images = torch.zeros(2, 3, 16, 16)
    network = NETWORKS[name]()
    groups = find_groups(network, images)
    found = lean_copy(network, images, level, chunks, rerun=1)
    model = MemoryModel.compile(found, images)
    assert len(model.tape.part_slopes)
    rng = np.random.default_rng(chunks)
    full = np.array([group.channels for group in groups])
    few = np.array([group.multiple for group in groups])  # fewer channels than chunks
    some = np.maximum(few, (rng.uniform(0.02, 1, len(few)) * full).astype(int) // few * few)
    for channels in (full, few, some):
        pruned = found.on(resized(network, groups, channels.tolist()))
        own = MemoryModel.compile(pruned, images, groups=())
        assert model.peaks(channels, batch_size=3) == own.peaks([], batch_size=3)
        assert model.breakdown(channels, batch_size=3).peak_bytes == own.peaks([], batch_size=3)
    together = model.peaks(np.stack([full, few, some]), batch_size=3)
    assert together.tolist() == [int(model.peaks(c, batch_size=3)) for c in (full, few, some)]


def test_a_model_of_chunks_is_stored_and_has_slopes(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 16, 16)
    model = MemoryModel.compile(lean_copy(networks.Residual(), images, "chunked", 2), images)
    model.save(tmp_path / "model.npz")
    read = MemoryModel.load(tmp_path / "model.npz")
    full = np.array([group.channels for group in model.groups])
    assert read.digest == model.digest
    assert read.peaks(full, batch_size=4) == model.peaks(full, batch_size=4)
    peak, slopes = model.peak_and_gradient(full, batch_size=4)
    fewer = int(model.peaks(full // 2, batch_size=4))
    assert fewer < peak
    assert peak - (slopes * (full - full // 2)).sum() == pytest.approx(fewer, rel=0.15)


def test_blocks_are_named_in_what_is_held() -> None:
    images = torch.zeros(2, 3, 24, 24)
    network = lean_copy(NETWORKS["inverted"](), images)
    model = MemoryModel.compile(network, images, groups=())
    sites = [site.module for _, site, _ in model.held_at_peak([], batch_size=2)]
    assert any(module.startswith("features") for module in sites)


def test_a_lean_step_takes_less() -> None:
    images = torch.zeros(2, 3, 24, 24)
    network = networks.SqueezeExcite()

    def peak(each: nn.Module) -> int:
        model = MemoryModel.compile(each, images, groups=())
        return int(model.peaks([], batch_size=8))

    stock, lean = peak(network), peak(lean_copy(network, images))
    chunked = peak(lean_copy(network, images, "chunked", 4))
    assert chunked < lean < stock
