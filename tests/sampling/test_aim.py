import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dse.config import GroupRule, SpaceConfig
from dse.sampling.aim import scale, target, targets
from dse.sampling.relax import relax
from dse.sampling.search_space import SearchSpace
from support.searches import BATCH, memory_model

MODEL = memory_model()
SPACE = SearchSpace.resolve(
    SpaceConfig(
        ratio=(0.0, 0.9), multiple=4, floor=4, group=(GroupRule(pattern="first", fixed=0.5),)
    ),
    MODEL.groups,
)
RANGE = {"smallest_bytes": 6_000_000, "largest_bytes": 80_000_000}


def peaks(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return MODEL.peaks(counts, batch_size=BATCH)


def peak_of(kept: Sequence[int]) -> int:
    return int(peaks(np.array([kept]))[0])


SMALLEST = peak_of([ladder[0] for ladder in SPACE.ladders])
WIDEST = peak_of([ladder[-1] for ladder in SPACE.ladders])
directions = st.lists(
    st.floats(0.01, 1.0), min_size=len(SPACE.choices), max_size=len(SPACE.choices)
)


def test_ends_and_budgets_are_aimed_at_first() -> None:
    first = targets(**RANGE, budgets=(1_000_000, 24_000_000, 90_000_000))
    assert first == (80_000_000, 24_000_000, 6_000_000)
    drawn = [target(draw, **RANGE, budgets=(24_000_000,)) for draw in range(3)]
    assert drawn == list(first)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_targets_cover_the_range_evenly_however_many_there_are(seed: int) -> None:
    for count in (8, 33, 200):
        drawn = [target(draw, **RANGE, budgets=(), seed=seed) for draw in range(count)]
        assert len(set(drawn)) == count
        assert min(drawn) >= RANGE["smallest_bytes"]
        assert max(drawn) <= RANGE["largest_bytes"]
        logs = np.sort(np.log(drawn))
        widest = np.diff(logs).max() / math.log(80 / 6)
        assert widest < 3 / count  # random targets leave gaps of about ln(count) / count


def test_targets_may_begin_above_the_smaller_end_and_still_reach_it_once() -> None:
    drawn = [target(draw, **RANGE, budgets=(), lowest_bytes=24_000_000) for draw in range(30)]
    assert drawn[:2] == [80_000_000, 6_000_000]
    assert min(drawn[2:]) >= 24_000_000
    assert len(set(drawn)) == 30


def test_a_range_of_one_point_is_aimed_at_there() -> None:
    assert {target(draw, smallest_bytes=9, largest_bytes=9, budgets=()) for draw in range(9)} == {9}


@given(shares=directions, place=st.floats(0, 1))
def test_scaled_and_relaxed_a_candidate_is_just_below_its_target(
    shares: list[float], place: float
) -> None:
    target_bytes = SMALLEST + int(place * (WIDEST - SMALLEST))
    kept = scale(shares, ladders=SPACE.ladders, peaks=peaks, target_bytes=target_bytes)
    assert all(count in ladder for count, ladder in zip(kept, SPACE.ladders, strict=True))
    assert peak_of(kept) <= target_bytes
    relaxed = relax(kept, ladders=SPACE.ladders, peaks=peaks, limit_bytes=target_bytes)
    # The next rung of any group would be too much; none is higher than this.
    highest = WIDEST / 8
    assert peak_of(relaxed) > min(target_bytes, WIDEST - 1) - highest
    # What is at its target already is the sampler's own: scaling changes nothing.
    drawn = SPACE.parameters(relaxed)
    again = scale(
        SPACE.shares(drawn), ladders=SPACE.ladders, peaks=peaks, target_bytes=target_bytes
    )
    assert again == relaxed


@given(shares=directions)
def test_the_ends_of_every_direction_are_the_smallest_and_the_widest_network(
    shares: list[float],
) -> None:
    smallest, widest = (
        scale(shares, ladders=SPACE.ladders, peaks=peaks, target_bytes=target_bytes)
        for target_bytes in (SMALLEST, WIDEST)
    )
    assert peak_of(smallest) == SMALLEST
    assert peak_of(widest) == WIDEST
    beyond = scale(shares, ladders=SPACE.ladders, peaks=peaks, target_bytes=SMALLEST - 1)
    assert peak_of(beyond) == SMALLEST  # left to the gate


@given(shares=directions, places=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_larger_target_never_keeps_less(shares: list[float], places: tuple[float, float]) -> None:
    fewer, more = (
        scale(
            shares,
            ladders=SPACE.ladders,
            peaks=peaks,
            target_bytes=SMALLEST + int(place * (WIDEST - SMALLEST)),
        )
        for place in sorted(places)
    )
    assert all(a <= b for a, b in zip(fewer, more, strict=True))
