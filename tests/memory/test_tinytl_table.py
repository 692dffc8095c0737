"""TinyTL's table 2, row by row, by the formula of its profiler (docs/comparison.md shows it).

Cai et al., NeurIPS 2020: ProxylessNAS-Mobile, batch 8. In its training script the side branches are
part of the network whatever is trained, so every row has them.
"""

import pytest
import torch
from torch import nn

from dse.memory.layerwise import LayerwiseMemory, layerwise_memory
from dse.step.lite_residual import attach
from support.proxyless import ProxylessMobile

MB = 1_000_000
FLOWERS, CIFAR = 102, 10  # outputs


def with_tinytls_branches(network: nn.Module, images: torch.Tensor) -> nn.Module:
    """Two groups, 5x5; 3x3 where its code counts the pooled images as smaller than that."""
    attach(network, images)
    for name, branch in network.lite_residual.items():
        width, kernel = branch.conv.in_channels, 3 if int(name.partition("-")[2]) > 16 else 5
        branch.conv = nn.Conv2d(
            width,
            width,
            kernel,
            stride=branch.conv.stride,
            padding=kernel // 2,
            groups=2,
            bias=False,
        )
    return network


def counted(
    scheme: str, *, size: int = 224, own: bool = False, classes: int = FLOWERS
) -> LayerwiseMemory:
    images = torch.zeros(1, 3, size, size)
    network = ProxylessMobile(classes)
    if not own:
        network = with_tinytls_branches(network, images)
    return layerwise_memory(network, images, batch_size=8, scheme=scheme)


def test_the_network_is_the_published_one() -> None:
    assert sum(p.numel() for p in ProxylessMobile(1000).parameters()) == 4_080_512


@pytest.mark.parametrize(
    ("scheme", "size", "published", "here"),
    [
        ("bias", 224, 32, 31.69),
        ("lite-residual", 224, 37, 37.13),
        ("lite-residual", 320, 65, 64.71),
        ("norm", 224, 192, 192.80),
        ("full", 224, 391, 391.57),
    ],
)
def test_rows_are_the_published_ones(scheme: str, size: int, published: int, here: float) -> None:
    megabytes = counted(scheme, size=size).peak_bytes / MB
    assert megabytes == pytest.approx(here, abs=0.005)
    assert abs(megabytes - published) < 1  # whole numbers, one for all of its data sets


def test_the_last_layers_row_is_published_without_masks() -> None:
    memory = counted("last")
    assert memory.peak_bytes / MB == pytest.approx(31.63, abs=0.005)
    peak = max(memory.layers, key=lambda layer: layer.needed_bits)
    batch_size, bits = 8, 8
    without_masks = memory.peak_bytes - peak.saved_before_bits * batch_size // bits
    assert without_masks / MB == pytest.approx(30.83, abs=0.005)  # published: 31


@pytest.mark.parametrize(("scheme", "here"), [("norm", 192.33), ("full", 391.09)])
def test_the_largest_rows_are_published_with_few_outputs(scheme: str, here: float) -> None:
    memory = counted(scheme, classes=CIFAR)
    assert memory.peak_bytes / MB == pytest.approx(here, abs=0.005)


@pytest.mark.parametrize(
    ("scheme", "here"),
    [("last", 29.82), ("bias", 29.87), ("lite-residual", 38.79), ("full", 366.97)],
)
def test_our_branches_are_there_where_they_train_alone(scheme: str, here: float) -> None:
    """Three by three without groups: 9 weights where two groups of 5x5 have 12.5, and 3x3 4.5."""
    assert counted(scheme, own=True).peak_bytes / MB == pytest.approx(here, abs=0.005)
