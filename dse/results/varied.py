"""What a part of the recipe may be in a search: one of some values, or any value of a range."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Value = str | int | float | bool


@dataclass(frozen=True, kw_only=True)
class ValueRange:
    """All values from `low` to `high`, both included."""

    low: float
    high: float


Varied = tuple[Value, ...] | ValueRange
"""Values with the study's own first, or a range that contains the study's own."""


def contains(varied: Varied, value: object) -> bool:
    """Whether a recipe's value is among those that the search may draw."""
    if isinstance(varied, ValueRange):
        return isinstance(value, int | float) and varied.low <= value <= varied.high
    return value in varied


def varied_text(varied: Varied) -> str:
    """Write values as "8, 16", and a range as "0.001 to 0.016"."""
    if isinstance(varied, ValueRange):
        return f"{varied.low:g} to {varied.high:g}"
    return ", ".join(map(str, varied))


def varied_to_json(varied: Varied) -> list[Value] | dict[str, float]:
    """Return a list of values, or an object with `low` and `high`."""
    return asdict(varied) if isinstance(varied, ValueRange) else list(varied)


def varied_from_json(stored: Sequence[Value] | Mapping[str, Any]) -> Varied:
    """Read what `varied_to_json` returned."""
    return ValueRange(**stored) if isinstance(stored, Mapping) else tuple(stored)
