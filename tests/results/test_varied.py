"""What may vary: listed values, and ranges."""

import json

import pytest

from dse.results.varied import (
    ValueRange,
    Varied,
    contains,
    varied_from_json,
    varied_text,
    varied_to_json,
)

RANGE = ValueRange(low=0.001, high=0.016)


@pytest.mark.parametrize(
    ("varied", "text"),
    [((8, 16), "8, 16"), (("full", "last"), "full, last"), (RANGE, "0.001 to 0.016")],
)
def test_it_is_the_same_after_json_and_has_a_text(varied: Varied, text: str) -> None:
    assert varied_from_json(json.loads(json.dumps(varied_to_json(varied)))) == varied
    assert varied_text(varied) == text


def test_a_range_contains_what_lies_between_its_ends() -> None:
    assert all(contains(RANGE, value) for value in (0.001, 0.002, 0.016))
    assert not any(contains(RANGE, value) for value in (0.0009, 0.017, "a"))


def test_listed_values_contain_only_themselves() -> None:
    assert contains((8, 16), 16)
    assert not contains((8, 16), 12)
