"""What a profiled piece of work allocates, and a step that runs out of memory."""

import gc
import weakref
from itertools import count

import pytest
import torch
from torch import Tensor

from dse.errors import MemoryModelError
from dse.memory.measure import marked, measure_peak, most_allocated_each
from dse.step.canonical import classification_loss
from dse.step.settings import StepSettings
from support.networks import Residual


def test_garbage_of_before_is_gone_when_the_profiler_starts(
    capfd: pytest.CaptureFixture[str],
) -> None:
    cycle: list[object] = [torch.zeros(2**16)]
    cycle.append(cycle)
    del cycle

    def work() -> None:
        with marked():
            gc.collect()
            torch.zeros(2**10)

    gc.disable()  # so that nothing but what is tested collects it
    try:
        assert most_allocated_each([work]) == [4 * 2**10]
    finally:
        gc.enable()
    assert "unknown size" not in capfd.readouterr().err


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_step_that_runs_out_of_memory_is_named_whichever_it_is(failing: int) -> None:
    """The second step holds the optimizer's state too, so the first may fit where it doesn't."""
    steps, images = count(), torch.zeros(4, 3, 8, 8)

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        if next(steps) == failing:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")
        return classification_loss(outputs, labels)

    with pytest.raises(MemoryModelError, match="a step with 4 images of 8x8 needs more memory"):
        measure_peak(Residual(), images, torch.zeros(4, dtype=torch.long), loss=loss)


def test_a_step_in_another_memory_format_holds_one_copy_of_its_images() -> None:
    given = [torch.zeros(4, 3, 8, 8)]
    original = weakref.ref(given[0])
    alive: list[bool] = []

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        alive.append(original() is not None)
        return classification_loss(outputs, labels)

    settings = StepSettings(memory_format="channels-last")
    labels = torch.zeros(4, dtype=torch.long)
    measure_peak(Residual(), given.pop(), labels, settings=settings, loss=loss)
    assert not any(alive)
    assert len(alive) > 1
