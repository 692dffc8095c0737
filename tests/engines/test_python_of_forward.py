"""Forward passes whose Python does more than call one layer after the other."""

import operator
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import dse
from support.lean import assert_same, lean_copy


class Changing(nn.Module):
    """Changes a value in place, and reads it again under its other name."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 3)
        self.change = change

    def forward(self, images: Tensor) -> Tensor:
        values = self.norm(self.stem(images))
        changed = self.change(values)
        return self.head((self.conv(changed) + values).mean((2, 3)))


def set_first(values: Tensor) -> Tensor:
    values[:, :2] = 0.0
    return values


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "+=": lambda values: operator.iadd(values, torch.tanh(values)),
    "+= 1": lambda values: operator.iadd(values, 1.0),
    "-=": lambda values: operator.isub(values, torch.tanh(values)),
    "*=": lambda values: operator.imul(values, 2.0),
    "/=": lambda values: operator.itruediv(values, 2.0),
    "relu": lambda values: functional.relu(values, inplace=True),
    "relu_": lambda values: values.relu_(),
    "add_": lambda values: values.add_(torch.tanh(values)),
    "set": set_first,
    "module": nn.ReLU(inplace=True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_value_that_is_changed_in_place_has_changed_under_every_name(change: str) -> None:
    torch.manual_seed(0)
    network, images = Changing(CHANGES[change]), torch.randn(4, 3, 8, 8)
    assert_same(network, lean_copy(network, images), images)


DRAWS: dict[str, Callable[[], float]] = {
    "random": random.random,
    "numpy": lambda: float(np.random.rand()),  # noqa: NPY002  # as networks draw
    "torch": lambda: torch.rand(()).item(),
}


class Skipping(nn.Module):
    """Skips a block by a random number that no tensor shows."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.stem, self.head, self.draw = nn.Conv2d(3, 8, 3), nn.Linear(8, 3), draw
        self.block = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        values = self.stem(images)
        if self.draw() < 0.5:
            values = self.block(values)
        return self.head(values.mean((2, 3)))


@pytest.mark.parametrize("source", DRAWS)
def test_what_a_network_draws_in_python_is_drawn_anew_in_every_step(source: str) -> None:
    torch.manual_seed(0)
    network, images = Skipping(DRAWS[source]), torch.randn(4, 3, 8, 8)
    lean = dse.lean(network, images)
    assert "Skipping" in lean.lean_plan.untraced
    for seed in range(8):
        outputs = []
        for one in (network, lean):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
            outputs.append(one(images))
        assert torch.equal(*outputs)
