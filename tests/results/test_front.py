"""Dominance, hypervolume and knee, against their definitions and against moocore."""

from random import Random

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from dse.results.front import (
    hypervolume,
    hypervolume_history,
    knee,
    maximised,
    non_dominated,
)
from support.dominance import dominates

Values = NDArray[np.float64]


@st.composite
def scored(
    draw: st.DrawFn, objectives: st.SearchStrategy[int] | None = None
) -> tuple[Values, list[bool]]:
    """Points on a coarse grid, so that ties and equal points are common."""
    k = draw(objectives if objectives is not None else st.integers(1, 4))
    n = draw(st.integers(0, 12))
    values = draw(arrays(np.float64, (n, k), elements=st.integers(-3, 3).map(float)))
    maximise = draw(st.lists(st.booleans(), min_size=k, max_size=k))
    return values, maximise


@given(scored())
def test_non_dominated_is_what_no_other_point_dominates(case: tuple[Values, list[bool]]) -> None:
    values, maximise = case
    expected = [
        not any(dominates(other, point, maximise=maximise) for other in values) for point in values
    ]
    assert non_dominated(values, maximise=maximise).tolist() == expected


@given(scored(), st.randoms(use_true_random=False))
def test_non_dominated_does_not_depend_on_order(
    case: tuple[Values, list[bool]], random: Random
) -> None:
    values, maximise = case
    order = list(range(len(values)))
    random.shuffle(order)
    mask = non_dominated(values, maximise=maximise)
    assert non_dominated(values[order], maximise=maximise).tolist() == mask[order].tolist()


@given(scored())
def test_some_front_member_weakly_dominates_every_point(case: tuple[Values, list[bool]]) -> None:
    values, maximise = case
    front = values[non_dominated(values, maximise=maximise)]
    for point in values:
        assert any(
            dominates(member, point, maximise=maximise) or np.array_equal(member, point)
            for member in front
        )


@given(scored(st.integers(2, 4)))
def test_hypervolume_agrees_with_moocore(case: tuple[Values, list[bool]]) -> None:
    values, maximise = case
    reference = np.where(maximise, -2.0, 2.0)
    expected = moocore.hypervolume(values, ref=reference, maximise=maximise) if len(values) else 0.0
    assert hypervolume(values, reference=reference, maximise=maximise) == pytest.approx(expected)


@given(
    arrays(np.float64, st.tuples(st.integers(1, 40), st.just(2)), elements=st.floats(0, 1e9)),
)
def test_hypervolume_of_two_objectives_agrees_with_moocore_on_large_values(values: Values) -> None:
    expected = moocore.hypervolume(values, ref=[5e8, 5e8])
    assert hypervolume(values, reference=[5e8, 5e8], maximise=[False, False]) == pytest.approx(
        expected, rel=1e-9, abs=1e-3
    )


def test_hypervolume_by_hand() -> None:
    values = [[2, 0.9], [1, 0.7], [3, 0.95], [2.5, 0.8], [9, 1.0]]
    volume = hypervolume(values, reference=[4, 0.5], maximise=[False, True])
    assert volume == pytest.approx(3 * 0.2 + 2 * 0.2 + 1 * 0.05)


@given(scored(st.integers(2, 3)))
def test_history_is_the_hypervolume_of_every_prefix(case: tuple[Values, list[bool]]) -> None:
    values, maximise = case
    reference = np.where(maximise, -2.0, 2.0)
    history = hypervolume_history(values, reference=reference, maximise=maximise)
    expected = [
        hypervolume(values[: n + 1], reference=reference, maximise=maximise)
        for n in range(len(values))
    ]
    assert history.tolist() == pytest.approx(expected)
    assert np.all(np.diff(history) >= 0)


def test_knee_by_hand() -> None:
    values = [[10, 0.95], [5, 0.94], [1, 0.5], [6, 0.6], [9, 0.945]]
    assert knee(values, maximise=[False, True]) == 1


@pytest.mark.parametrize(
    "values",
    [
        [],
        [[1, 0.5]],
        [[1, 0.5], [2, 0.6]],
        [[1, 0.5], [2, 0.6], [3, 0.7]],  # a straight line bends nowhere
        [[1, 0.1], [2, 0.15], [3, 0.9]],  # bends the other way
        [[1, 0.5], [1, 0.5]],
    ],
)
def test_no_knee(values: list[list[float]]) -> None:
    assert knee(values, maximise=[False, True]) is None


@given(scored(st.just(2)))
def test_a_knee_is_on_the_front(case: tuple[Values, list[bool]]) -> None:
    values, maximise = case
    row = knee(values, maximise=maximise)
    assert row is None or non_dominated(values, maximise=maximise)[row]


def test_a_knee_needs_two_objectives() -> None:
    with pytest.raises(ValueError, match="2 objectives, got 3"):
        knee([[1, 2, 3]], maximise=[False] * 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    values = [[1.0, 2.0], [bad, 3.0]]
    for refuse in (
        lambda: non_dominated(values, maximise=[False, True]),
        lambda: hypervolume(values, reference=[9, 0], maximise=[False, True]),
        lambda: hypervolume_history(values, reference=[9, 0], maximise=[False, True]),
        lambda: knee(values, maximise=[False, True]),
    ):
        with pytest.raises(ValueError, match="row 1, column 0 isn't finite"):
            refuse()
    with pytest.raises(ValueError, match="isn't finite"):
        hypervolume([[1, 2]], reference=[bad, 0], maximise=[False, True])


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 3\) don't fit 2 objectives"):
        non_dominated([[1, 2, 3]], maximise=[False, True])
    with pytest.raises(ValueError, match="don't fit"):
        hypervolume([[1, 2]], reference=[1, 2, 3], maximise=[False, True])


def test_only_accuracy_is_maximised() -> None:
    assert maximised(["accuracy", "peak_bytes", "parameters"]) == (True, False, False)
