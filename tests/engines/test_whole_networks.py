"""Whole networks against stock PyTorch, random layers and running statistics included."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision import models

from dse.engines.plan import Level
from dse.step.lite_residual import attach
from support import networks
from support.lean import assert_same, lean_copy, levels_of


def _vit() -> nn.Module:
    return models.VisionTransformer(16, 8, 2, 2, 16, 32, dropout=0.1, num_classes=3)


def _convnext() -> nn.Module:
    setting = models.convnext.CNBlockConfig
    blocks = [setting(8, 16, 2), setting(16, None, 1)]
    return models.ConvNeXt(blocks, stochastic_depth_prob=0.5, layer_scale=0.5, num_classes=3)


def _efficientnet() -> nn.Module:
    setting = models.efficientnet.MBConvConfig
    blocks = [setting(1, 3, 1, 8, 8, 1), setting(4, 5, 2, 8, 12, 3)]
    return models.EfficientNet(blocks, 0.2, stochastic_depth_prob=0.5, num_classes=3)


def _side_branches() -> nn.Module:
    network = networks.Blocks()
    attach(network, torch.zeros(2, 3, 16, 16))
    return network


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": lambda: models.mobilenet_v2(width_mult=0.25, num_classes=3),
    "mobilenet_v3": lambda: models.mobilenet_v3_small(width_mult=0.25, num_classes=3),
    "efficientnet": _efficientnet,
    "mnasnet": lambda: models.MNASNet(0.25, num_classes=3),
    "resnet": lambda: models.ResNet(models.resnet.BasicBlock, [2, 1, 1, 1], num_classes=3),
    "bottlenecks": lambda: models.ResNet(
        models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=3, groups=8, width_per_group=8
    ),
    "convnext": _convnext,
    "vit": _vit,
    "squeezenet": lambda: models.squeezenet1_1(num_classes=3),
    "side branches": _side_branches,
    "blocks": networks.Blocks,
    "concatenating": networks.Concatenating,
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("level", ["lean", "recomputed"])
def test_steps_are_the_same_bit_by_bit(name: str, level: Level) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]()
    images = torch.randn(4, 3, 32 if name != "vit" else 16, 32 if name != "vit" else 16)
    with torch.no_grad():
        network(images)  # lazy layers get their shapes
    found = lean_copy(network, images, level)
    assert level in levels_of(found)
    assert_same(network, found, images, steps=3)


@pytest.mark.parametrize("name", ["mobilenet_v3", "resnet"])
@pytest.mark.parametrize(
    ("layout", "level", "slices"),
    [
        (torch.channels_last, "lean", 1),
        (torch.channels_last, "lean", 8),
        (torch.contiguous_format, "recomputed", 8),
    ],
)
def test_maps_of_one_pixel_have_the_bits_of_stock_pytorch(
    name: str, layout: torch.memory_format, level: Level, slices: int
) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().to(memory_format=layout)
    images = torch.randn(4, 3, 16, 16).contiguous(memory_format=layout)
    found = lean_copy(network, images, level, slices)
    # The gradients of slices may be laid out in another way.
    assert_same(network, found, images, tolerance=0.0 if slices == 1 else 1e-30)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3", "convnext", "resnet", "vit"])
def test_chunked_steps_agree_in_double_precision(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().double()
    side = 48 if name != "vit" else 16
    images = torch.randn(4, 3, side, side, dtype=torch.double)
    found = lean_copy(network, images, "chunked", 3)
    assert ("chunked" in levels_of(found)) == (name != "vit")  # dropout draws the whole width
    assert_same(network, found, images, tolerance=1e-11)


def test_frozen_networks_hold_less_still() -> None:
    network = NETWORKS["mobilenet_v2"]()
    images = torch.randn(2, 3, 32, 32)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(("classifier", "features.17")))
    assert_same(network, lean_copy(network, images), images, steps=2)


def test_modes_may_change_between_steps() -> None:
    network = NETWORKS["mobilenet_v3"]()
    images = torch.randn(2, 3, 32, 32)
    found = lean_copy(network, images)
    assert_same(network, found, images)
    network.eval()
    found.eval()
    assert_same(network, found, images)
    network.train()
    found.train()
    assert_same(network, found, images)
