from collections.abc import Iterator

import pytest

from dse.candidate import Candidate
from dse.results.candidate_records import TrialRecord
from dse.search.progress import Meter


def meter(ticks: Iterator[float]) -> Meter:
    return Meter(
        objectives=("accuracy", "peak_bytes"),
        reference={"accuracy": 0.2, "peak_bytes": 100.0},
        full_to_short=10.0,
        trials=5,
        full_evaluations=6,
        started=0.0,
        budgets=(55, 95, 20),
        clock=lambda: next(ticks),
    )


def trial(number: int, accuracy: float, peak_bytes: int) -> TrialRecord:
    return TrialRecord(
        number=number,
        state="complete",
        params={},
        candidate=Candidate(channels={}),
        peak_bytes=peak_bytes,
        accuracy=accuracy,
        values={"accuracy": accuracy, "peak_bytes": float(peak_bytes)},
        wall_seconds=2.0,
    )


def test_nothing_is_estimated_before_anything_was_trained() -> None:
    gauge = meter(iter([1.0]))
    gauge.begin("baselines", total=3)
    now = gauge.now
    assert now.remaining_seconds is None
    assert (now.front_size, now.hypervolume, now.elapsed_seconds) == (0, 0.0, 1.0)


def test_front_hypervolume_and_estimate_follow_the_trials() -> None:
    gauge = meter(iter([5.0, 5.5, 6.0, 7.0, 8.0, 9.0]))
    gauge.begin("search", total=5, done=0)
    gauge.count(trial(0, 0.6, 50))
    gauge.count(trial(1, 0.5, 60))  # dominated
    gauge.count(trial(2, 1.0, 90))
    now = gauge.now
    assert now.done == 3
    assert now.states == {"complete": 3}
    assert now.front_size == 2
    assert now.best == {55: 0.6, 95: 1.0}
    assert now.hypervolume == pytest.approx((0.4 * 50 + 0.4 * 10) / (0.8 * 100))
    assert now.remaining_seconds == 2 * 2.0 + 6 * 20.0  # two trials, six trainings in full

    gauge.count(trial(3, 1.0, 96))  # over every budget, as without a gate: no front has it
    gauge.begin("search", total=5, done=3)
    assert gauge.now.hypervolume == now.hypervolume

    gauge.deadline = 8.0  # the clock is read once before, for the time elapsed
    assert gauge.now.remaining_seconds == pytest.approx(1.0 + 6 * 20.0)

    gauge.begin("finalists", total=6)
    gauge.add_time("full", 30.0)
    gauge.done = 1
    assert gauge.now.remaining_seconds == 5 * 30.0
