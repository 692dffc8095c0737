"""Decoding one image with Pillow: upright, square, three colours of a byte each."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from dse.data.files import readable_formats
from dse.data.pixels import Bytes, Extremes, Scale, extremes
from dse.errors import UnreadableImageError

logging.getLogger("PIL").addHandler(logging.NullHandler())  # its errors reach the user as ours

_ORIENTATION = 0x0112
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BY_WAY_OF_RGBA = ("P", "LA", "La", "PA")  # which palettes with transparency need


class _Quiet:
    """Silences warnings while any thread decodes; Python's own filters aren't per thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(None, None, None)


# Of sound images too Pillow warns: of size, of odd metadata, of transparent palettes.
quiet = _Quiet()


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file; whatever a decoder raises within names the file.

    Raises:
        UnreadableImageError: It can't be read, or holds nothing that can be used.
    """
    try:
        with quiet, Image.open(path, formats=readable_formats()) as image:
            yield image
    except Exception as error:  # whatever a decoder may raise, out of memory included
        raise UnreadableImageError(path, reason_of(error)) from error


def reason_of(error: BaseException) -> str:
    """Say an error in one line; Pillow's own name the file again, which we do already."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip().partition("\n")[0]
    return text.partition(" file <")[0].partition(" file '")[0] or type(error).__name__


def deep(image: Image.Image) -> bool:
    """Whether the values of an image are more than bytes."""
    return image.mode.startswith("I") or image.mode == "F"


def deep_colour(image: Image.Image) -> bool:
    """Whether the file holds 16-bit colours, of which Pillow gives the high byte alone.

    To be asked before the image is loaded.
    """
    raw = [str(tile[3]) for tile in getattr(image, "tile", ()) if tile[3]]
    return not deep(image) and any(";16" in one for one in raw)


def extremes_of(image: Image.Image) -> Extremes:
    """Decode an image, and find its smallest and largest value where they are more than bytes.

    Raises:
        Exception: Whatever a decoder may raise.
    """
    colour = deep_colour(image)
    image.load()
    if deep(image):
        return extremes(np.asarray(image))
    if colour:
        return Extremes("16-bit colour", high=float(np.asarray(image).max(initial=0)))
    image.convert("RGB" if image.mode not in _BY_WAY_OF_RGBA else "RGBA")
    return Extremes("bytes")


def square(image: Image.Image, size: int, *, scale: Scale = Scale()) -> Bytes:  # noqa: B008  # frozen
    """Scale an image's short side to a size and cut the centre out.

    Args:
        image: Of any mode; grey ones become three equal colours, transparency is dropped.
        size: Side of the result, in pixels.
        scale: Of values that are more than bytes.

    Returns:
        (3, size, size).
    """
    image.load()
    upright = _colours(_upright(image), scale)
    width, height = upright.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    scaled = upright.resize(
        (size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
    )
    return np.ascontiguousarray(np.asarray(scaled, dtype=np.uint8).transpose(2, 0, 1))


def _upright(image: Image.Image) -> Image.Image:
    """Turn a photograph as its EXIF says; EXIF that can't be read says nothing."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
        method = _TURNED.get(int(orientation)) if orientation is not None else None
    except Exception:  # noqa: BLE001  # metadata of any program; the picture itself is sound
        return image
    return image if method is None else image.transpose(method)


def _colours(image: Image.Image, scale: Scale) -> Image.Image:
    if image.mode == "RGB":
        return image
    if deep(image):  # which Pillow would clip and not scale
        return Image.fromarray(scale.to_bytes(np.asarray(image))).convert("RGB")
    if image.mode in _BY_WAY_OF_RGBA:
        image = image.convert("RGBA")
    return image.convert("RGB")
