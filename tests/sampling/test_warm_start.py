"""Accuracies of earlier runs are brought to the present run's scale."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.sampling.warm_start import Row, calibrated

SHARED = ("a", "b", "c")


def rows(accuracies: dict[str, float]) -> list[Row]:
    return [(text, 100, accuracy) for text, accuracy in accuracies.items()]


@given(
    slope=st.floats(0.2, 1.0),
    offset=st.floats(0.0, 0.1),
    other=st.floats(0.1, 0.85),
)
def test_a_straight_relation_is_found_from_what_both_have_scored(
    slope: float, offset: float, other: float
) -> None:
    theirs = {"a": 0.3, "b": 0.5, "c": 0.8}
    ours = {text: offset + slope * accuracy for text, accuracy in theirs.items()}
    (found,) = calibrated(rows({**theirs, "new": other}), ours)
    text, peak_bytes, accuracy = found
    assert (text, peak_bytes) == ("new", 100)
    assert accuracy == pytest.approx(offset + slope * other)


def test_few_shared_candidates_give_an_offset_alone() -> None:
    (found,) = calibrated(rows({"a": 0.5, "b": 0.7, "new": 0.6}), {"a": 0.4, "b": 0.7})
    assert found[2] == pytest.approx(0.55)


def test_equal_accuracies_give_an_offset_alone() -> None:
    same = dict.fromkeys(SHARED, 0.5)
    (found,) = calibrated(rows({**same, "new": 0.6}), {"a": 0.4, "b": 0.5, "c": 0.6})
    assert found[2] == pytest.approx(0.6)


def test_opposite_rankings_teach_nothing_but_the_mean() -> None:
    (found,) = calibrated(
        rows({"a": 0.3, "b": 0.5, "c": 0.7, "new": 0.9}), {"a": 0.7, "b": 0.5, "c": 0.3}
    )
    assert found[2] == pytest.approx(0.5)


def test_without_a_shared_candidate_nothing_is_learned() -> None:
    assert calibrated(rows({"new": 0.9}), {"a": 0.5}) == []
    assert calibrated([], {"a": 0.5}) == []


def test_accuracies_stay_accuracies() -> None:
    theirs = {"a": 0.30, "b": 0.31, "c": 0.32, "high": 1.0, "low": 0.0}
    found = calibrated(rows(theirs), {"a": 0.1, "b": 0.5, "c": 0.9})
    assert {text: accuracy for text, _, accuracy in found} == {"high": 1.0, "low": 0.0}
