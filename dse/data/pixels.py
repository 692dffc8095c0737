"""Converts stored values of any depth to bytes, with one scale for a whole data set.

A scale per image would remove differences between images, such as brightness. The depth of the file
format is often not the depth in use (12 bits in a 16-bit file). The largest value of the whole data
set therefore determines the scale.
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

_TOPS = (255, 1023, 4095, 16383, 65535)  # largest values of 8, 10, 12, 14 and 16 bits
_UNIT_TOLERANCE = 0.01  # resampling may exceed the range from 0 to 1 by this much
_LOWEST_OF_BYTES = 32.0  # a largest float below this fits neither 0 to 1 nor 0 to 255
_HALF_USED = 64  # of the high byte of 16-bit colours; a smaller maximum means 14 bits or fewer
_DARK = 256  # an image whose maximum is less than this part of the scale becomes black


@dataclass(frozen=True)
class Extremes:
    """The range of one image's values.

    Attributes:
        kind: how they are stored; of "16-bit colour" only the high bytes are known.
        low: smallest value.
        high: largest value.
    """

    kind: Kind
    low: float = 0.0
    high: float = 255.0


@dataclass(frozen=True)
class Scale:
    """The values that become white; bytes are unchanged.

    Attributes:
        integers: white of integers larger than bytes; None if the scale was found without any.
        floats: white of floating-point numbers.
        text: the decision, as text for the user.
        notes: other observations, one line each.
    """

    integers: int | None = None
    floats: float = 1.0
    text: str = "bytes, from 0 to 255"
    notes: tuple[str, ...] = ()

    def to_bytes(self, values: npt.NDArray[Any]) -> Bytes:
        """Scale values of any type to 0..255; values slightly outside the scale are clipped.

        Raises:
            ValueError: if a value is not a finite real number, or the values are on another scale.
        """
        if values.dtype == np.uint8:
            as_they_are: Bytes = values
            return as_they_are
        if values.dtype == np.bool_:
            white: Bytes = values.astype(np.uint8) * np.uint8(255)
            return white
        found = extremes(values)
        top = self.floats if found.kind == "floats" else self.integers
        if top is None:
            raise ValueError(
                f"it holds values of type {values.dtype}, and none of the images that were sampled "
                "does: give all images one type"
            )
        if found.high > max(_LOWEST_OF_BYTES, 2 * top):  # random transforms may exceed the top
            raise ValueError(
                f"it has values up to {found.high:g}, and the images that were sampled up to "
                f"{top:g}: bring all images to one scale"
            )
        scaled = values.astype(np.float64) * (255 / top)
        rounded: Bytes = np.rint(scaled.clip(0, 255)).astype(np.uint8)
        return rounded


def extremes(values: npt.NDArray[Any]) -> Extremes:
    """Return the smallest and largest value of an array.

    Raises:
        ValueError: if it is empty, or a value is not a real number or not finite.
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
        images: name and range of each image.

    Raises:
        DataError: if an image fits no known scale; the message names it.
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
        unit = "bit" if bits == 1 else "bits"
        texts.append(f"grey values of {bits} {unit}, from 0 to {integers}, brought to bytes")
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
