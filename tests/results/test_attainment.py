"""Attainment surfaces against a count of the runs that attain each place."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dse.results.attainment import attainment_surface

Floats = NDArray[np.float64]
POINTS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5)), min_size=1, max_size=6)


def attained(points: Floats, place: tuple[int, int]) -> bool:
    """Whether some point needs no more memory (first) and is as accurate (second)."""
    return bool(np.any((points[:, 0] <= place[0]) & (points[:, 1] >= place[1])))


@given(st.lists(POINTS, min_size=1, max_size=5), st.sampled_from([0.0, 25.0, 50.0, 75.0, 100.0]))
def test_a_surface_borders_what_enough_runs_attain(
    runs: list[list[tuple[int, int]]], percent: float
) -> None:
    fronts = [np.array(run, dtype=float) for run in runs]
    surface = attainment_surface(fronts, percent=percent, maximise=(False, True))
    needed = max(1, math.ceil(len(runs) * percent / 100))
    for place in ((x, y) for x in range(8) for y in range(7)):
        enough = sum(attained(front, place) for front in fronts) >= needed
        assert attained(surface.reshape(-1, 2), place) == enough
    assert np.all(np.diff(surface[:, 0]) > 0)
    assert np.all(np.diff(surface[:, 1]) > 0)


@pytest.mark.parametrize("fronts", [[], [np.empty((0, 2))], [np.ones((1, 2)), np.empty((0, 2))]])
def test_runs_without_points_are_refused(fronts: list[Floats]) -> None:
    with pytest.raises(ValueError, match="at least one point each"):
        attainment_surface(fronts, percent=50, maximise=(False, True))
