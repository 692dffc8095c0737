import contextlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.errors import ConfigError
from dse.units import (
    exact_size,
    exact_text,
    format_deviation,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

NO_SIZES = ["", " ", "MiB", "64 M", "64 XB", "-1 MiB", "1e3", "1,5 GB", "1 MiB 2", "nan", "٣ MiB"]
NO_DURATIONS = ["", " ", "m", "10 minutes", "30m1h", "-5s", "1e3", "10mm", "nan", "٣m", "9" * 400]


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        (0, 0),
        (123, 123),
        ("0", 0),
        ("123 B", 123),
        ("64 MiB", 64 * 1024**2),
        ("64MiB", 64 * 1024**2),
        (" 64  mib ", 64 * 1024**2),
        ("1.5GB", 1_500_000_000),
        ("1.5 GiB", 1536 * 1024**2),
        ("512 kB", 512_000),
        ("512 KiB", 512 * 1024),
        ("2 TB", 2 * 10**12),
        ("0.3 KiB", 307),  # rounded down, so that a budget is never stretched
    ],
)
def test_sizes(text: object, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("wrong", [*NO_SIZES, -1, True, 1.5, None, [1], float("nan")])
def test_what_is_no_size_is_refused_with_the_valid_forms(wrong: object) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(wrong))) as caught:
        parse_size(wrong)
    assert '"64 MiB"' in str(caught.value)


@given(st.integers(min_value=0, max_value=2**80))
def test_exact_sizes_read_back(size_bytes: int) -> None:
    assert parse_size(exact_size(size_bytes)) == size_bytes
    assert parse_size(exact_text(size_bytes)) == size_bytes


def test_exact_sizes_take_the_largest_unit_that_loses_nothing() -> None:
    written = [
        exact_size(size) for size in (0, 1, 1024, 24 * 1024**2, 24 * 1024**2 + 1, 3 * 1024**4)
    ]
    assert written == [0, 1, "1 KiB", "24 MiB", 24 * 1024**2 + 1, "3 TiB"]


@given(st.integers(min_value=0, max_value=2**55))
def test_formatted_sizes_are_right_to_the_digits_shown(size_bytes: int) -> None:
    text = format_size(size_bytes)
    assert float(text.split()[0]) < 1024 or text.endswith("TiB")
    assert parse_size(text) == pytest.approx(size_bytes, rel=0.05, abs=1)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),  # never "1024.0 KiB"
        (67_108_864, "64.0 MiB"),
        (-2048, "-2.0 KiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_formatted_sizes(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (0, 0.0),
        (90, 90.0),
        (1.5, 1.5),
        ("90", 90.0),
        ("90s", 90.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("1.5H", 5400.0),
        ("2d", 172_800.0),
        ("1d2h3m4.5s", 93_784.5),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("wrong", [*NO_DURATIONS, -1, True, None, float("nan"), 10**400])
def test_what_is_no_duration_is_refused_with_the_valid_forms(wrong: object) -> None:
    with pytest.raises(ConfigError, match="is not a duration") as caught:
        parse_duration(wrong)
    assert '"1h30m"' in str(caught.value)


@given(st.floats(min_value=0, max_value=1e8))
def test_formatted_durations_read_back_to_the_digits_shown(seconds: float) -> None:
    shown = 0.05 if seconds < 60 else 0.5 if seconds < 3600 else 30
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=shown + 1e-6)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.34, "8.3s"), (59.96, "1m00s"), (125, "2m05s"), (3599.7, "1h00m"), (5400, "1h30m")],
)
def test_formatted_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text()))
)
def test_anything_is_read_or_refused(value: Any) -> None:
    for parse in (parse_size, parse_duration):
        with contextlib.suppress(ConfigError):
            assert parse(value) >= 0


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "exactly that"),
        (-0.0181, "1.81 % below that"),
        (0.0123, "1.23 % above that"),
        (-4e-5, "within 0.01 % of that"),
        (-6e-5, "0.01 % below that"),
    ],
)
def test_a_deviation_names_its_direction(share: float, text: str) -> None:
    assert format_deviation(share) == text
