"""Every registered convention keeps one contract."""

import pytest
import torch

from dse.errors import ConfigError
from dse.memory.conventions import (
    CONVENTIONS,
    CountedStep,
    check_convention,
    count_step,
)
from dse.memory.model import MemoryModel
from dse.pruning.groups import find_groups
from dse.step.settings import StepSettings
from support.networks import Residual

EXAMPLE = torch.zeros(2, 3, 12, 12)
NETWORK = Residual()
GROUPS = find_groups(NETWORK, EXAMPLE)
MODEL = MemoryModel.compile(NETWORK, EXAMPLE, groups=GROUPS)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSE_CACHE", str(tmp_path_factory.getbasetemp() / "conventions"))


def step(*, batch_size: int = 4, unpruned: bool = True) -> CountedStep:
    kept = [g.channels if unpruned else g.channels // 2 for g in GROUPS]
    return CountedStep(
        model=MODEL,
        channels=kept,
        batch_size=batch_size,
        network=NETWORK,
        example_input=EXAMPLE,
        groups=GROUPS,
        threads=1,
    )


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_count_adds_up_and_follows_batch_and_channels(name: str) -> None:
    found = count_step(name, step())
    breakdown = found.breakdown
    assert sum(breakdown.categories.values()) == breakdown.peak_bytes
    assert all(held >= 0 for held in breakdown.categories.values())
    assert found.timeline_convention in (name, "tensors")
    of_timeline = found.timeline.breakdown().peak_bytes
    assert (of_timeline == breakdown.peak_bytes) is (found.timeline_convention == name)
    for other in (step(batch_size=2), step(unpruned=False)):
        assert count_step(name, other).breakdown.peak_bytes < breakdown.peak_bytes


@pytest.mark.parametrize("name", CONVENTIONS)
def test_an_option_is_refused_where_it_changes_nothing(name: str) -> None:
    kind = CONVENTIONS[name]
    check_convention(name, settings=StepSettings())
    for option, applies in (
        ({"element_bits": 8}, kind.takes_element_bits),
        ({"probe": True}, kind.runs_operators),
    ):
        if applies:
            check_convention(name, settings=StepSettings(), **option)
            continue
        with pytest.raises(ConfigError, match=r"--convention"):
            check_convention(name, settings=StepSettings(), **option)


def test_layerwise_covers_plain_steps_alone() -> None:
    for settings in (
        StepSettings(accumulate=2),
        StepSettings(checkpointing="blocks"),
        StepSettings(precision="bf16-mixed"),
    ):
        with pytest.raises(ConfigError, match="layerwise does not cover"):
            check_convention("layerwise", settings=settings)
