"""Plans within a budget: exact peaks, the least time, and what can't be."""

import copy
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision import models

import dse
from dse.engines.block_costs import Cost
from dse.engines.budget import Planner, traced_peak
from dse.engines.solve import Block, Step
from dse.errors import ConfigError, InfeasibleError, NetworkError
from dse.memory.measure import measure_peak
from dse.memory.model import MemoryModel
from dse.step.canonical import classification_loss
from dse.step.settings import StepSettings
from support import networks
from support.lean import assert_same, levels_of


def _inverted() -> nn.Module:
    setting = [[1, 16, 1, 1], [6, 24, 2, 2]]
    return models.MobileNetV2(3, 0.25, inverted_residual_setting=setting, dropout=0.0)


def _convnext() -> nn.Module:
    setting = models.convnext.CNBlockConfig
    return models.ConvNeXt([setting(8, 16, 1), setting(16, None, 1)], layer_scale=0.5)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "inverted": _inverted,
    "gated": networks.SqueezeExcite,
    "residual": networks.Residual,
    "convnext": _convnext,
    "pooled": lambda: models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=3),
    "concatenating": networks.Concatenating,
}
IMAGES = torch.zeros(4, 3, 32, 32)


def planner_of(name: str, scheme: str = "full", **changes: object) -> Planner:
    network = NETWORKS[name]()
    with torch.no_grad():
        network(IMAGES)  # lazy layers get their shapes
    found = dse.lean(network, IMAGES, scheme)
    step = StepSettings(scheme=scheme, **changes)  # type: ignore[arg-type]
    return Planner.of(found, IMAGES, settings=step, loss=classification_loss)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("scheme", "changes"),
    [
        ("full", {}),
        ("bias", {"optimizer": "adamw", "set_to_none": False}),
        ("full", {"accumulate": 2, "memory_format": "channels-last"}),
        ("full", {"optimizer": "adam", "optimizer_in_backward": True}),
    ],
)
def test_the_peak_of_any_plan_is_that_of_the_traced_step(
    name: str, scheme: str, changes: dict[str, object]
) -> None:
    planner = planner_of(name, scheme, **changes)
    rng = np.random.default_rng(0)
    for _ in range(3):
        chosen = [int(rng.integers(len(options))) for options in planner.options] + [0]
        plan = planner.plan(chosen)
        traced = traced_peak(
            planner.network.with_plan(plan),
            planner.shape,
            settings=planner.settings,
            loss=planner.loss,
        )
        # A gradient that comes permuted may need a copy more: then only the trace is exact.
        assert plan.peak_bytes == pytest.approx(traced, rel=0.02 if name == "convnext" else 0)
    least = planner.least().peak_bytes
    assert least is not None
    assert planner.within(least).peak_bytes == least


costs = st.builds(
    Cost,
    forward_bytes=st.integers(1, 60),
    held_bytes=st.integers(0, 60),
    holds_input=st.booleans(),
    holds_output=st.booleans(),
    backward_bytes=st.integers(1, 60),
    backward_bytes_kept=st.integers(61, 80),
    seconds=st.floats(0.5, 2.0),
)
steps = st.builds(
    Step,
    blocks=st.lists(
        st.builds(
            Block,
            costs=st.lists(costs, min_size=1, max_size=3).map(tuple),
            entry_bytes=st.integers(0, 20),
            gradient_bytes=st.integers(0, 20),
        ),
        min_size=1,
        max_size=5,
    ).map(tuple),
    resident_bytes=st.just(10),
    optimizer_bytes=st.integers(10, 60),
)


@settings(max_examples=25)
@given(step=steps, share=st.floats(0, 1))
def test_the_fastest_plan_is_as_fast_as_trying_all(step: Step, share: float) -> None:
    plans = list(itertools.product(*(range(len(block.costs)) for block in step.blocks)))
    peaks = {chosen: step.peak_bytes(chosen) for chosen in plans}
    assert step.least_bytes() == min(peaks.values())
    budget = int(min(peaks.values()) + share * (max(peaks.values()) - min(peaks.values())))
    chosen = step.best(budget)
    assert chosen is not None
    assert step.peak_bytes(chosen) <= budget
    fastest = min(step.seconds(each) for each, peak in peaks.items() if peak <= budget)
    assert step.seconds(chosen) <= 1.05 * fastest
    assert step.best(min(peaks.values()) - 1) is None


@settings(max_examples=25)
@given(step=steps)
def test_the_peak_grows_with_the_budget(step: Step) -> None:
    least = step.least_bytes()
    found = [step.best(budget) for budget in range(least, least + 60, 7)]
    peaks = [step.peak_bytes(each) for each in found if each is not None]
    assert peaks == sorted(peaks)
    assert len(peaks) == len(found)


@pytest.mark.parametrize("name", ["inverted", "gated", "residual"])
def test_a_real_network_by_exhaustion(name: str) -> None:
    planner = planner_of(name)
    step = planner.step
    # All choices of the first blocks; the others hold only what they need.
    count = min(3, len(planner.options))
    free = [range(len(options)) for options in planner.options[:count]]
    fixed = [min(1, len(block.costs) - 1) for block in step.blocks[count:]]
    plans = [[*first, *fixed] for first in itertools.product(*free)]
    for plan in plans[:: max(1, len(plans) // 7)]:
        budget = step.peak_bytes(plan)
        chosen = step.best(budget)
        assert chosen is not None
        fastest = min(step.seconds(each) for each in plans if step.peak_bytes(each) <= budget)
        assert step.seconds(chosen) <= 1.05 * fastest


def test_a_budget_is_kept_by_real_steps() -> None:
    torch.manual_seed(0)
    network = _inverted()
    model = MemoryModel.compile(network, IMAGES, groups=())
    stock = int(model.peaks([], batch_size=4))
    least = dse.lean(network, IMAGES, "full", budget="least").lean_plan.peak_bytes
    assert least is not None
    peaks, times = [], []
    for share in (0.0, 0.4, 1.0):
        budget = int(least + share * (stock - least))
        found = dse.lean(network, IMAGES, "full", budget=budget)
        plan = found.lean_plan
        assert plan.peak_bytes is not None
        assert plan.time is not None
        assert plan.peak_bytes <= budget
        measured = measure_peak(copy.deepcopy(found), IMAGES, torch.arange(4) % 3)
        # The allocator holds the kernels' workspace beside the tensors.
        assert plan.peak_bytes <= measured.peak_bytes <= 1.3 * plan.peak_bytes
        peaks.append(plan.peak_bytes)
        times.append(plan.time)
    assert peaks == sorted(peaks)
    assert times == sorted(times, reverse=True)
    assert set(levels_of(found)) <= {"stock", "lean"}


def test_a_planned_network_trains_as_stock_does() -> None:
    torch.manual_seed(0)
    network = _inverted().double()
    images = torch.randn(4, 3, 32, 32, dtype=torch.double)
    found = dse.lean(copy.deepcopy(network).float(), images.float(), "full", budget="least")
    assert "chunked" in levels_of(found)
    assert_same(network, found.on(copy.deepcopy(network)), images, tolerance=1e-11)
    assert "% of stock PyTorch's" in str(found.lean_plan)


def test_a_plan_with_the_bits_of_stock_pytorch() -> None:
    torch.manual_seed(0)
    network, images = _inverted(), torch.randn(4, 3, 32, 32)
    found = dse.lean(copy.deepcopy(network), images, "full", budget="least", bit_identical=True)
    free = dse.lean(copy.deepcopy(network), images, "full", budget="least")
    plain = MemoryModel.compile(dse.lean(network, images), images, groups=())
    assert "recomputed" in levels_of(found)
    assert "chunked" not in levels_of(found)
    peaks = [free.lean_plan.peak_bytes, found.lean_plan.peak_bytes, plain.peaks([], batch_size=4)]
    assert peaks == sorted(peaks)  # type: ignore[type-var]
    assert_same(network, found, images, steps=2)


def test_a_budget_that_nothing_fits_names_the_least() -> None:
    network = _inverted()
    least = dse.lean(network, IMAGES, "full", budget="least").lean_plan.peak_bytes
    assert least is not None
    with pytest.raises(InfeasibleError, match=f"the least takes {least:,} bytes"):
        dse.lean(network, IMAGES, "full", budget=least - 1)
    assert dse.lean(network, IMAGES, "full", budget=least).lean_plan.peak_bytes == least


def test_what_a_plan_can_not_run_is_refused() -> None:
    network = _inverted()
    with pytest.raises(ConfigError, match="no setting 'optimiser'"):
        dse.lean(network, IMAGES, optimiser="sgd")
    with pytest.raises(ConfigError, match="checkpointing belongs to stock"):
        dse.lean(network, IMAGES, checkpointing="blocks")
    with pytest.raises(ConfigError, match="autocast"):
        dse.lean(network, IMAGES, precision="bf16-mixed")
    with pytest.raises(ConfigError, match="not a size"):
        dse.lean(network, IMAGES, budget="little")


class DependsOnValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = networks.Blocks()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.inner(images) if images.sum() < 1e9 else self.inner(-images)


def test_a_budget_takes_a_network_that_can_be_traced() -> None:
    with pytest.raises(NetworkError, match="leave budget off"):
        dse.lean(DependsOnValues(), IMAGES, budget="least")
