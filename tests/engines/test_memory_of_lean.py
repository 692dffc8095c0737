"""The memory model and real steps of lean networks."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision import models

from dse.engines.plan import Level
from dse.errors import MemoryModelError
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


def test_a_plan_with_chunks_is_modelled_at_its_own_widths() -> None:
    images = torch.zeros(2, 3, 16, 16)
    found = lean_copy(networks.Residual(), images, "chunked", 2)
    with pytest.raises(MemoryModelError, match=r"with groups=\(\)"):
        MemoryModel.compile(found, images)
    assert MemoryModel.compile(found, images, groups=()).groups == ()


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
