import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp, ttest_ind

from dse.results.seeds import differ, difference_interval, mean_interval, ratio_interval

figures = st.lists(st.floats(0, 1).map(lambda x: round(x, 3)), min_size=2, max_size=6)


@given(figures, figures)
def test_both_are_scipys_welch(first: list[float], second: list[float]) -> None:
    ends = difference_interval(first, second)
    if ends is None:
        assert len(set(first)) == len(set(second)) == 1
        assert differ(first, second) in ({False} if first[0] == second[0] else {None})
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # SciPy's, where one side has no scatter
        found = ttest_ind(first, second, equal_var=False)
        low, high = found.confidence_interval(0.95)
    assert ends == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    if not math.isclose(found.pvalue, 0.05, rel_tol=1e-6):
        assert differ(first, second) is bool(found.pvalue < 0.05)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0.90, 0.91, 0.92), (0.80, 0.81, 0.82), True),
        ((0.90, 0.91, 0.92), (0.89, 0.91, 0.915), False),
        ((0.90,), (0.10, 0.11), None),
        ((0.90,), (0.90,), None),
        ((0.90, 0.90), (0.90, 0.90), False),
        ((0.90, 0.90), (0.80, 0.80), None),  # no scatter to judge the difference by
        ((0.90, 0.90), (0.89, 0.92), False),
        ((0.90, 0.90, 0.90), (0.5, 0.51, 0.52), True),
    ],
)
def test_no_verdict_where_no_test_is_possible(
    first: tuple[float, ...], second: tuple[float, ...], *, expected: bool | None
) -> None:
    assert differ(first, second) is expected
    assert differ(second, first) is expected


def test_one_seed_has_no_interval() -> None:
    assert difference_interval((0.9,), (0.8, 0.7)) is None


@given(figures)
def test_the_interval_of_a_mean_is_scipys(values: list[float]) -> None:
    ends = mean_interval(values)
    if ends is None:
        assert len(set(values)) == 1
        return
    low, high = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert ends == (pytest.approx(low), pytest.approx(high))


def test_the_interval_of_a_ratio_covers_the_true_one() -> None:
    draws = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        first, second = draws.normal(2, 0.2, 5), draws.normal(1, 0.15, 8)
        ends = ratio_interval(first.tolist(), second.tolist())
        assert ends is not None
        hits += ends[0] <= 2 <= ends[1]
    assert 0.92 <= hits / 400 <= 0.98


@pytest.mark.parametrize(
    ("first", "second"), [((1.0,), (1.0, 2.0)), ((1.0, 1.0), (2.0, 2.0)), ((0.0, 0.0), (1.0, 2.0))]
)
def test_no_interval_of_a_ratio_without_scatter_or_above_zero(
    first: tuple[float, ...], second: tuple[float, ...]
) -> None:
    assert ratio_interval(first, second) is None
