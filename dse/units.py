"""Parses and formats sizes and durations: "64 MiB", "1h30m"."""

import math
import re
from dataclasses import dataclass
from decimal import Decimal

from dse.errors import ConfigError

# Data sheets use both 1024-based and 1000-based units, so "M" alone is ambiguous and refused.
_BYTES = {
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "tb": 1000**4,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
    "tib": 1024**4,
}
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_MOST_BYTES = 10**30  # larger than any memory; keeps all results finite
_LONGEST_TEXT = 30  # maximum length of an invalid value in a message
_LONGEST_SECONDS = 1e10  # three centuries; keeps all results finite
_NUMBER = r"\d+(?:\.\d+)?"
_SIZE = re.compile(rf"({_NUMBER})\s*([a-z]*)", re.IGNORECASE)
_DURATION = re.compile(
    "".join(rf"(?:(?P<{unit}>{_NUMBER})\s*{unit}\s*)?" for unit in _SECONDS), re.IGNORECASE
)
_SIZE_FORMS = 'write bytes as a whole number, or a text such as "64 MiB", "1.5 GB" or "512 KiB"'
_DURATION_FORMS = 'write seconds as a number, or a text such as "90s", "10m" or "1h30m"'


def parse_size(value: object) -> int:
    """Parse a size of memory.

    Args:
        value: whole number of bytes, or text of a number and a unit (B, kB, MB, GB, TB by 1000;
            KiB, MiB, GiB, TiB by 1024; case and the space between don't matter); only 0 needs no
            unit.

    Returns:
        Bytes, rounded down, never negative.

    Raises:
        ConfigError: if the value is not a size.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_BYTES:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) and value.isascii() else None
    if match is None or (match[2] or "b").lower() not in _BYTES:
        raise ConfigError(f"{value!r} is not a size: {_SIZE_FORMS}")
    size = Decimal(match[1]) * _BYTES[(match[2] or "b").lower()]
    if size > _MOST_BYTES:
        raise ConfigError(
            f"{str(value)[:_LONGEST_TEXT]!r}... is larger than any memory: write a smaller size"
        )
    if size and not match[2]:
        raise ConfigError(f"{value!r} has no unit: write {match[1]}MiB, or {match[1]}B for bytes")
    return math.floor(size)


@dataclass(frozen=True, order=True)
class PeakShare:
    """A share of the peak memory of a study's unpruned network, such as "25 %".

    Attributes:
        percent: above 0, up to 100.
    """

    percent: Decimal

    def __str__(self) -> str:
        """Return text that `parse_budget` parses to the same share."""
        return f"{self.percent.normalize():f} %"

    def of(self, peak_bytes: int) -> int:
        """Return this share of a peak in bytes, rounded down, at least 1."""
        return max(1, int(self.percent * peak_bytes / 100))


def parse_budget(value: object) -> int | PeakShare:
    """Parse a budget: a size above 0, or a share of the unpruned network's peak such as "25 %".

    Raises:
        ConfigError: if the value is neither.
    """
    text = value.strip() if isinstance(value, str) and value.isascii() else ""
    if text.endswith("%"):
        number = text[:-1].strip()
        percent = Decimal(number) if re.fullmatch(_NUMBER, number) else Decimal(0)
        if not 0 < percent <= 100:  # noqa: PLR2004  # the whole
            raise ConfigError(
                f"{value!r} is not a share of the unpruned network's peak: write above 0 % and "
                'up to 100 %, as in "25 %"'
            )
        return PeakShare(percent)
    try:
        size = parse_size(value)
    except ConfigError as error:
        if str(error).endswith(_SIZE_FORMS):
            raise ConfigError(f'{error}, or a share of the unpruned peak, as in "25 %"') from error
        raise
    if size == 0:
        raise ConfigError("must be greater than 0")
    return size


def format_size(size_bytes: float) -> str:
    """Format bytes with one decimal in the largest fitting 1024-based unit, as in "64.0 MiB"."""
    scaled = float(size_bytes)
    for unit in _BINARY[:-1]:
        text = f"{scaled:.0f}" if unit == "B" else f"{scaled:.1f}"
        if abs(float(text)) < 1024:  # noqa: PLR2004 -- the rounded figure decides: never "1024.0 KiB"
            return f"{text} {unit}"
        scaled /= 1024
    return f"{scaled:.1f} {_BINARY[-1]}"


def distinct_sizes(*sizes_bytes: int) -> tuple[str, ...]:
    """Format sizes like `format_size`; add the bytes if different sizes would look alike."""
    texts = tuple(map(format_size, sizes_bytes))
    if len(set(texts)) == len(set(sizes_bytes)):
        return texts
    return tuple(f"{text} ({size:,} bytes)" for text, size in zip(texts, sizes_bytes, strict=True))


def format_deviation(share: float) -> str:
    """Format a relative difference from a measurement, as in "1.81 % below that"."""
    if not share:
        return "exactly that"
    percent = f"{100 * abs(share):.2f}"
    if not float(percent):
        return "within 0.01 % of that"
    return f"{percent} % {'above' if share > 0 else 'below'} that"


def exact_size(size_bytes: int) -> int | str:
    """Format whole bytes so that `parse_size` restores them exactly: "24 MiB", or 25165825."""
    power = 0
    while size_bytes and power < len(_BINARY) - 1 and size_bytes % 1024 == 0:
        size_bytes //= 1024
        power += 1
    return f"{size_bytes} {_BINARY[power]}" if power else size_bytes


def exact_text(size_bytes: int) -> str:
    """Format whole bytes as text that `parse_size` restores exactly: "24 MiB", or "25165825 B"."""
    size = exact_size(size_bytes)
    return size if isinstance(size, str) else f"{size} B"


def parse_duration(value: object) -> float:
    """Parse a duration.

    Args:
        value: number of seconds, or text of numbers with the units d, h, m and s in this order
            ("10m", "1h30m", "1.5h", "90s"); text without a unit means seconds.

    Returns:
        Seconds, finite, never negative.

    Raises:
        ConfigError: if the value is not a duration.
    """
    seconds: int | float | Decimal | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value
    elif isinstance(value, str) and value.isascii() and value.strip():
        text = value.strip()
        if match := re.fullmatch(_NUMBER, text):
            seconds = Decimal(text)
        elif match := _DURATION.fullmatch(text):
            seconds = sum(Decimal(match[unit] or 0) * size for unit, size in _SECONDS.items())
    if seconds is None or not 0 <= seconds <= _LONGEST_SECONDS:  # also refuses NaN
        raise ConfigError(f"{value!r} is not a duration: {_DURATION_FORMS}")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """Format seconds for display: "8.3s" below a minute, "2m05s" below an hour, then "1h30m"."""
    if round(seconds, 1) < _SECONDS["m"]:
        return f"{seconds:.1f}s"
    if round(seconds) < _SECONDS["h"]:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}h{minutes:02d}m"
