"""Decodes one image with Pillow: upright, of a given shape, with values of one byte each."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from dse.data.files import readable_formats
from dse.data.pixels import Bytes, Extremes, Scale, extremes
from dse.data.quiet import quiet
from dse.data.reading import RESAMPLING, Reading
from dse.errors import UnreadableImageError

logging.getLogger("PIL").addHandler(logging.NullHandler())  # users see its errors as ours

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
_BY_WAY_OF_RGBA = ("P", "LA", "La", "PA")  # palettes with transparency must become RGBA first


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file; any exception of the decoder becomes an error that names the file.

    Raises:
        UnreadableImageError: if it can't be read or decoded.
    """
    try:
        with quiet, Image.open(path, formats=readable_formats()) as image:
            yield image
    except Exception as error:  # decoders may raise anything, out of memory included
        raise UnreadableImageError(path, reason_of(error)) from error


def reason_of(error: BaseException) -> str:
    """Return an error as one line, without the file name that Pillow adds."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip().partition("\n")[0]
    return text.partition(" file <")[0].partition(" file '")[0] or type(error).__name__


def deep(image: Image.Image) -> bool:
    """Return whether an image holds values larger than bytes."""
    return image.mode.startswith("I") or image.mode == "F"


def deep_colour(image: Image.Image) -> bool:
    """Return whether the file holds 16-bit colours, of which Pillow returns only the high byte.

    Must be called before the image is loaded.
    """
    raw = [str(tile[3]) for tile in getattr(image, "tile", ()) if tile[3]]
    return not deep(image) and any(";16" in one for one in raw)


def extremes_of(image: Image.Image) -> Extremes:
    """Decode an image and return its smallest and largest value if they are larger than bytes.

    Raises:
        Exception: any exception of the decoder.
    """
    colour = deep_colour(image)
    image.load()
    if deep(image):
        return extremes(np.asarray(image))
    if colour:
        return Extremes("16-bit colour", high=float(np.asarray(image).max(initial=0)))
    image.convert("RGB" if image.mode not in _BY_WAY_OF_RGBA else "RGBA")
    return Extremes("bytes")


def shaped(image: Image.Image, reading: Reading, *, scale: Scale = Scale()) -> Bytes:  # noqa: B008  # frozen
    """Scale an image to a shape, cutting off what its proportions have too much.

    Args:
        image: image of any mode; transparency is dropped.
        reading: shape and interpolation.
        scale: scale of values that are larger than bytes.

    Returns:
        (channels, height, width) uint8.
    """
    image.load()
    upright = _colours(_upright(image), scale)
    if upright.mode != reading.mode:
        upright = upright.convert(reading.mode)
    scaled = upright.resize(
        (reading.width, reading.height),
        RESAMPLING[reading.interpolation],
        box=reading.box(*upright.size),
    )
    values = np.asarray(scaled, dtype=np.uint8).reshape(*scaled.size[::-1], reading.channels)
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def _upright(image: Image.Image) -> Image.Image:
    """Rotate an image by its EXIF orientation; unreadable EXIF is ignored."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
        method = _TURNED.get(int(orientation)) if orientation is not None else None
    except Exception:  # noqa: BLE001  # metadata may be broken while the image is intact
        return image
    return image if method is None else image.transpose(method)


def _colours(image: Image.Image, scale: Scale) -> Image.Image:
    if image.mode == "RGB":
        return image
    if deep(image):  # Pillow would clip such values instead of scaling them
        return Image.fromarray(scale.to_bytes(np.asarray(image))).convert("RGB")
    if image.mode in _BY_WAY_OF_RGBA:
        image = image.convert("RGBA")
    return image.convert("RGB")
