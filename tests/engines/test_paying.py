"""Lean training never holds more than stock PyTorch."""

import copy

import pytest
import torch
from torch import Tensor, nn

from dse.engines import paying
from dse.engines.engine import engine_plan
from dse.engines.lean import lean
from dse.engines.network import LeanNetwork, run_by
from dse.memory.measure import measure_peak
from dse.step.settings import StepSettings
from support.lean import assert_same, levels_of


def _layer(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)]


def plain() -> nn.Module:
    """Holds its layers' inputs alone, of which none can be dropped."""
    return nn.Sequential(
        *_layer(3, 16),
        *_layer(16, 16),
        nn.MaxPool2d(2),
        *_layer(16, 32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 3),
    )


class Untraceable(nn.Module):
    """Only its submodules can be traced. What the first one holds is the same either way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 7, 2, 3), nn.BatchNorm2d(16), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.block = nn.Sequential(
            nn.Conv2d(16, 16, 3, 1, 1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, 1, 1),
            nn.BatchNorm2d(16),
        )
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        x = x + self.block(x)
        return self.head(x.mean((2, 3)) if x.isfinite().all() else x.amax((2, 3)))


class Mixed(nn.Module):
    """Computes its second half in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.single = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.double_ = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.GELU()).double()
        self.head = nn.Conv2d(8, 3, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.double_(self.single(x).double())).mean((2, 3))


def test_parts_may_have_precisions_of_their_own() -> None:
    images = torch.randn(2, 3, 16, 16)
    network = Mixed()
    found = lean(copy.deepcopy(network), images, "full")
    assert "lean" in levels_of(found)
    assert_same(network, found, images)


@pytest.mark.parametrize("scheme", ["full", "last"])
@pytest.mark.parametrize("make", [plain, Untraceable])
def test_a_real_step_holds_no_more_than_stock_pytorchs(make: type[nn.Module], scheme: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4) % 3
    network = make()
    found = lean(copy.deepcopy(network), images, scheme)
    stock = lean(network, images, scheme).stock
    settings = StepSettings(scheme=scheme)
    held, most = (
        measure_peak(each, images, labels, settings=settings, timed_steps=1).peak_bytes
        for each in (found, stock)
    )
    assert held <= most
    assert_same(stock, found, images)


def test_blocks_that_would_hold_no_less_run_as_stock_pytorch() -> None:
    images = torch.randn(4, 3, 32, 32)
    assert set(levels_of(lean(plain(), images, "full"))) == {"stock"}
    plan = lean(Untraceable(), images, "full").lean_plan
    levels = {part.module: [each.level for each in part.segments] for part in plan.programs}
    assert levels == {"stem": ["stock"], "block": ["stock", "lean", "stock"]}


def test_a_step_that_would_hold_more_nevertheless_runs_as_stock_pytorch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def peak(network: nn.Module, *_: object, **__: object) -> int:
        return 2 if isinstance(network, LeanNetwork) else 1

    monkeypatch.setattr(paying, "traced_peak", peak)
    found = lean(Untraceable(), torch.randn(2, 3, 32, 32), "full")
    assert set(levels_of(found)) == {"stock"}


def test_the_engine_of_a_study_does_so_too() -> None:
    images = torch.randn(2, 3, 32, 32)
    settings = StepSettings(engine="lean")
    plan = engine_plan(plain(), images, settings=settings, batch_size=4)
    assert plan is not None
    assert {each.level for part in plan.programs for each in part.segments} == {"stock"}
    network = plain()
    assert_same(network, run_by(copy.deepcopy(network), images, plan), images)
