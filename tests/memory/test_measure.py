"""What a profiled piece of work allocates."""

import gc

import pytest
import torch

from dse.memory.measure import marked, most_allocated_each


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
