"""From stored values of any depth to bytes, by one scale for a whole data set.

A scale that each image chose for itself would destroy what tells images apart, such as their
brightness; one that a file format names is often not the one in use (12 bits in a 16-bit file).
So the largest value of the whole data set decides.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dse.errors import DataError

Bytes = npt.NDArray[np.uint8]
Kind = Literal["bytes", "integers", "floats", "16-bit colour"]
KINDS: tuple[Kind, ...] = ("bytes", "integers", "floats", "16-bit colour")

_TOPS = (255, 1023, 4095, 16383, 65535)  # of 8, 10, 12, 14 and 16 bits
_UNIT_TOLERANCE = 0.01  # by which resampling may leave the range from 0 to 1
_LOWEST_OF_BYTES = 32.0  # floats up to less than this are neither from 0 to 1 nor to 255
_HALF_USED = 64  # of the high byte of 16-bit colours: less is 14 bits or fewer
_DARK = 256  # an image that reaches less than this part of the scale comes out black


@dataclass(frozen=True)
class Extremes:
    """The values of one image.

    Attributes:
        kind: How they are stored; of "16-bit colour" the high bytes alone are known.
        low, high: The smallest and the largest.
    """

    kind: Kind
    low: float = 0.0
    high: float = 255.0


@dataclass(frozen=True)
class Scale:
    """Which values become white; bytes stay as they are.

    Attributes:
        integers: Of integers beyond bytes.
        floats: Of floating-point numbers.
        text: What was decided, for the user.
        notes: What else was noticed, a line each.
    """

    integers: int = 65535
    floats: float = 1.0
    text: str = "bytes, from 0 to 255"
    notes: tuple[str, ...] = ()

    def to_bytes(self, values: npt.NDArray[Any]) -> Bytes:
        """Bring values of any type from 0 to 255; what lies outside the scale is clipped."""
        if values.dtype == np.uint8:
            as_they_are: Bytes = values
            return as_they_are
        if values.dtype == np.bool_:
            white: Bytes = values.astype(np.uint8) * np.uint8(255)
            return white
        top = self.floats if np.issubdtype(values.dtype, np.floating) else self.integers
        scaled = values.astype(np.float64) * (255 / top)
        rounded: Bytes = np.rint(scaled.clip(0, 255)).astype(np.uint8)
        return rounded


def extremes(values: npt.NDArray[Any]) -> Extremes:
    """Find the smallest and largest value of an array.

    Raises:
        ValueError: There are none, they are no real numbers, or one is not finite.
    """
    if values.dtype in (np.uint8, np.bool_):
        return Extremes("bytes")
    if not values.size:
        raise ValueError("it holds no values")
    if not np.issubdtype(values.dtype, np.integer) and not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"it holds values of type {values.dtype}")
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("it holds values that are not finite")
    kind: Kind = "floats" if np.issubdtype(values.dtype, np.floating) else "integers"
    return Extremes(kind, low, high)


def decide(images: Iterable[tuple[str, Extremes]]) -> Scale:
    """Choose the scale of a data set.

    Args:
        images: What each is called, and its extreme values.

    Raises:
        DataError: An image is on no scale that can be told; it is named.
    """
    by_kind: dict[Kind, list[tuple[str, Extremes]]] = {}
    for name, one in images:
        by_kind.setdefault(one.kind, []).append((name, one))
    texts, notes = [], []
    if by_kind.get("bytes"):
        texts.append(Scale.text)
    colours = by_kind.get("16-bit colour", [])
    if colours:
        _check_colours(colours)
        texts.append("16-bit colours, of which the high byte is read")
    integers, floats = Scale.integers, Scale.floats
    if found := by_kind.get("integers"):
        integers = _top_of_integers(found)
        bits = integers.bit_length()
        texts.append(f"grey values of {bits} bits, from 0 to {integers}, brought to bytes")
        notes += _dark(found, integers)
    if found := by_kind.get("floats"):
        floats = _top_of_floats(found)
        texts.append(f"floats from 0 to {floats:g}, brought to bytes")
        if floats > 1:
            notes += _dark(found, floats)
    return Scale(integers, floats, "; ".join(texts) or Scale.text, tuple(notes))


def _top_of_integers(found: list[tuple[str, Extremes]]) -> int:
    name, most = max(found, key=lambda one: one[1].high)
    lowest, least = min(found, key=lambda one: one[1].low)
    if least.low < 0:
        raise DataError(
            f"{lowest} has values down to {least.low:g}: shift them, so that black is 0, the same "
            "way for all images"
        )
    if most.high > _TOPS[-1]:
        raise DataError(
            f"{name} has values up to {most.high:g}: bring all images to 16 bits, from 0 to 65535"
        )
    if 0 < most.high <= 1:
        return 1
    return next(top for top in _TOPS if most.high <= top)


def _top_of_floats(found: list[tuple[str, Extremes]]) -> float:
    name, most = max(found, key=lambda one: one[1].high)
    lowest, least = min(found, key=lambda one: one[1].low)
    unit = most.high <= 1 + _UNIT_TOLERANCE
    if least.low < (-_UNIT_TOLERANCE if unit else 0):
        raise DataError(
            f"{lowest} has values from {least.low:g} to {least.high:g}, outside 0 to 1: leave "
            "normalising to data.mean and data.std, and give values from 0 to 1 or bytes"
        )
    if unit:
        return 1.0
    if most.high < _LOWEST_OF_BYTES or most.high > _TOPS[-1]:
        raise DataError(
            f"{name} has values up to {most.high:g}, outside 0 to 1 and on no other usual scale: "
            "leave normalising to data.mean and data.std, and give values from 0 to 1, to 255 or "
            "to 65535"
        )
    for dim, each in found:
        if 0 < each.high <= 1 and each.low < each.high:
            raise DataError(
                f"{dim} has values from 0 to {each.high:g}, and {name} up to {most.high:g}: bring "
                "all images to one scale"
            )
    return float(next(top for top in _TOPS if most.high <= top))


def _check_colours(found: list[tuple[str, Extremes]]) -> None:
    name, most = max(found, key=lambda one: one[1].high)
    if most.high < _HALF_USED:
        bits = 8 + max(0, int(most.high)).bit_length()
        raise DataError(
            f"{name} has 16-bit colours, of which {bits} bits are used at most, as in all images "
            "of this kind: only the high byte can be read; save them with 8 bits a colour"
        )


def _dark(found: list[tuple[str, Extremes]], top: float) -> list[str]:
    dark = [name for name, each in found if 0 < each.high < top / _DARK]
    if not dark:
        return []
    return [
        f"{len(dark):,} of {len(found):,} images, such as {dark[0]}, reach less than 1/{_DARK} of "  # noqa: ISC004
        f"the largest value ({top:g}) and come out black: is their scale another one?"
    ]
