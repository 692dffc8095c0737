"""Layers in unusual settings, and networks that are used in unusual ways."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import dse
from dse.engines.plan import Level
from support.lean import assert_same, lean_copy

LEVELS: list[Level] = ["lean", "recomputed", "chunked"]


def network_of(**norm: Any) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8, **norm),
        nn.ReLU6(),
        nn.Conv2d(8, 16, 1),
        nn.BatchNorm2d(16, **norm),
        nn.Hardswish(),
        nn.Conv2d(16, 16, 3, groups=16, padding=1),
        nn.BatchNorm2d(16, **norm),
        nn.SiLU(),
        nn.Conv2d(16, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


@pytest.fixture
def images() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(4, 3, 12, 12)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "norm", [{"track_running_stats": False}, {"momentum": None}, {"affine": False}, {"eps": 0.1}]
)
def test_batch_normalisation_of_every_kind(
    norm: dict[str, Any], level: Level, images: torch.Tensor
) -> None:
    network = network_of(**norm).double()
    tolerance = 1e-12 if level == "chunked" else 0.0
    found = lean_copy(network, images.double(), level, 2)
    assert_same(network, found, images.double(), tolerance=tolerance, steps=2)


@pytest.mark.parametrize("level", ["lean", "recomputed"])
def test_half_precision(level: Level, images: torch.Tensor) -> None:
    network = network_of().bfloat16()
    assert_same(network, lean_copy(network, images.bfloat16(), level), images.bfloat16())


@pytest.mark.parametrize("level", LEVELS)
def test_weights_that_are_computed(level: Level, images: torch.Tensor) -> None:
    network = network_of().double()
    nn.utils.parametrizations.weight_norm(network[3])
    tolerance = 1e-12 if level == "chunked" else 0.0
    found = lean_copy(network, images.double(), level, 2)
    assert_same(network, found, images.double(), tolerance=tolerance, steps=2)


def test_layers_that_are_not_recognised(images: torch.Tensor) -> None:
    network = nn.Sequential(
        *network_of()[:10],
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.GroupNorm(2, 4),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5, inplace=True),
        nn.Linear(16, 3),
    )
    for level in LEVELS[:2]:
        assert_same(network, lean_copy(network, images, level), images, steps=2)


def test_images_of_another_size_and_layout(images: torch.Tensor) -> None:
    network = network_of()
    found = lean_copy(network, images)
    assert_same(network, found, torch.randn(2, 3, 20, 16))
    assert_same(network, found, torch.randn(4, 12, 12, 3).permute(0, 3, 1, 2))


def test_parameters_from_outside(images: torch.Tensor) -> None:
    found = dse.lean(network_of(), images)
    given = {name: p.detach().clone().requires_grad_() for name, p in found.named_parameters()}
    torch.func.functional_call(found, given, (images,)).sum().backward()
    assert all(parameter.grad is not None for parameter in given.values())


def test_a_module_that_is_exchanged(images: torch.Tensor) -> None:
    network = network_of()
    found = dse.lean(network, images)
    found(images)
    network[3] = nn.Conv2d(8, 16, 1, stride=2)
    network[12] = nn.Identity()
    stock = copy.deepcopy(network)
    assert torch.equal(found(images), stock(images))
