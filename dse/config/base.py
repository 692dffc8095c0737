"""What all configuration classes share."""

from collections.abc import Hashable, Iterable
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T", bound=Hashable)

Ratio = Annotated[float, Field(ge=0, lt=1)]


class Frozen(BaseModel):
    """Base: frozen, unknown keys refused, no silent conversion between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class KeyedError(ValueError):
    """A check over several keys failed; `key` names the one to change, below the checked class."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def as_tuple(value: object) -> object:
    """Turn TOML's arrays into tuples, and leave all else to the type check."""
    return tuple(value) if isinstance(value, list) else value


def first_duplicate(values: Iterable[T]) -> T | None:
    """Return the first value that stands twice, or None."""
    seen: set[T] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
