"""Speed of one network beside another's."""

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from torch import nn

from dse.footprint.speed import Ratio, compare_speed
from dse.memory.measure import ReadyStep, ready_step
from dse.step.settings import StepSettings


class Sleeper(nn.Module):
    """A classifier that takes a known time for each pass."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.dropout = nn.Dropout()
        self.seconds = seconds
        self.modes: list[bool] = []

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        self.modes.append(self.training)
        time.sleep(self.seconds)
        out: torch.Tensor = self.layer(self.dropout(samples))
        return out


def sleeper(seconds: float, *, batch: int = 2) -> ReadyStep:
    samples, labels = torch.zeros(batch, 4), torch.arange(batch) % 3
    return ready_step(Sleeper(seconds), samples, labels, settings=StepSettings())


def test_ratios_are_those_of_known_times() -> None:
    ours, theirs = sleeper(0.01), sleeper(0.03)
    found = compare_speed(ours, theirs, samples=(2, 2), seconds=0.0)
    assert found.rounds == 7
    for one in (found.step, found.forward):
        assert one.interval[0] <= one.median <= one.interval[1]
        assert 0.2 < one.median < 0.7  # a busy machine adds to both
    again = compare_speed(theirs, ours, samples=(2, 2), seconds=0.0)
    assert again.step.median > 1.4


def test_times_are_those_of_a_sample() -> None:
    half = compare_speed(sleeper(0.02, batch=4), sleeper(0.02), samples=(4, 2), seconds=0.0)
    assert 0.3 < half.step.median < 0.8
    assert 0.3 < half.forward.median < 0.8


def test_a_forward_pass_runs_in_eval_mode_and_the_next_step_trains() -> None:
    ours = sleeper(0.0)
    compare_speed(ours, sleeper(0.0), samples=(2, 2), seconds=0.0)
    network = ours.network
    assert isinstance(network, Sleeper)
    assert network.modes == [True, False] * 8  # one round warms up
    assert network.training


@given(st.lists(st.floats(0.1, 10), min_size=6, max_size=40))
def test_the_interval_covers_the_median_with_95_percent(ratios: list[float]) -> None:
    found = Ratio.of(ratios)
    ordered = sorted(ratios)
    outer = ordered.index(found.interval[0])
    assert 1 - 2 * binom.cdf(outer, len(ratios), 0.5) >= 0.95 or len(set(ratios)) < len(ratios)
    assert found.interval[0] <= found.median <= found.interval[1]


@pytest.mark.parametrize(("count", "left_out"), [(6, 0), (9, 1), (25, 7)])
def test_so_many_rounds_are_left_out_at_either_end(count: int, left_out: int) -> None:
    found = Ratio.of([float(number) for number in range(count)])
    assert found.interval == (left_out, count - 1 - left_out)
