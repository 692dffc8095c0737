"""Decoding images to square colour bytes."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from dse.errors import DataError

Bytes = npt.NDArray[np.uint8]

# What Pillow raises on a broken file, by format and by place of the damage.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_BITS_BEYOND_BYTE = 8


def square(image: Image.Image, size: int) -> Bytes:
    """Scale an image's short side to a size and cut the centre out.

    Args:
        image: Of any mode; grey ones become three equal colours, transparency is dropped.
        size: Side of the result, in pixels.

    Returns:
        (3, size, size).
    """
    upright = _colours(ImageOps.exif_transpose(image))
    width, height = upright.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    scaled = upright.resize(
        (size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
    )
    return np.ascontiguousarray(np.asarray(scaled, dtype=np.uint8).transpose(2, 0, 1))


def _colours(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip and not scale
        grey = np.asarray(image).astype(np.int64) >> _BITS_BEYOND_BYTE
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("P", "LA", "PA"):  # by way of RGBA, which palettes with transparency need
        image = image.convert("RGBA")
    return image.convert("RGB")


@dataclass(frozen=True)
class FileImages:
    """Images in files, decoded when read, several at a time.

    Attributes:
        paths: The files.
        image_size: Side of what is read, in pixels.
    """

    paths: Sequence[Path]
    image_size: int

    def __len__(self) -> int:
        return len(self.paths)

    def digest(self) -> str:
        """Digest the files' names and sizes, not their contents: 16 hex digits.

        Raises:
            DataError: A file is gone; it is named.
        """
        try:
            listed = [f"{path.name}:{path.stat().st_size}" for path in self.paths]
        except OSError as error:
            raise DataError(f"{error.filename}: can't be read: {error.strerror}") from error
        return hashlib.sha256("\n".join(listed).encode()).hexdigest()[:16]

    def fetch(self, positions: Tensor) -> Tensor:
        """Decode images: (n, 3, size, size) uint8.

        Raises:
            DataError: A file is no image or is broken; it is named.
        """
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            return _stacked(list(pool.map(self._decoded, positions.tolist())), self.image_size)

    def _decoded(self, position: int) -> Bytes:
        path = self.paths[position]
        try:
            with Image.open(path) as image:
                return square(image, self.image_size)
        except _BROKEN as error:
            raise DataError(
                f"{path}: can't be read as an image ({_first_line(error)}): mend it or take it out"
            ) from error


@dataclass(frozen=True)
class DatasetImages:
    """Images of a map-style torch data set of (image, label), scaled when read.

    Attributes:
        dataset: Its images are Pillow images, (channels, height, width) tensors or arrays of bytes
            or of floats from 0 to 1, with one or three channels, or (height, width) ones.
        name: What messages call it.
        image_size: Side of what is read, in pixels.
    """

    dataset: Dataset[Any]
    name: str
    image_size: int

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # map-style data sets have a length

    def item(self, position: int) -> tuple[Any, Any]:
        """Read one (image, label) as the data set gives it.

        Raises:
            DataError: The data set's code fails, or gives something else.
        """
        try:
            image, label = self.dataset[position]
        except Exception as error:  # whatever a data set's own code may raise
            raise DataError(
                f"data {self.name!r}: image {position} can't be read as (image, label): "
                f"{type(error).__name__}: {_first_line(error)}"
            ) from error
        return image, label

    def fetch(self, positions: Tensor) -> Tensor:
        """Read images: (n, 3, size, size) uint8.

        Raises:
            DataError: An image can't be read, or has an unknown form.
        """
        return _stacked([self._square(one) for one in positions.tolist()], self.image_size)

    def _square(self, position: int) -> Bytes:
        image, _ = self.item(position)
        if isinstance(image, Image.Image):
            return square(image, self.image_size)
        place = f"data {self.name!r}: image {position}"
        tensor = _byte_tensor(image, place)
        if tensor.shape == (3, self.image_size, self.image_size):
            return np.asarray(tensor)
        return square(Image.fromarray(np.asarray(tensor.permute(1, 2, 0))), self.image_size)


def _byte_tensor(image: object, place: str) -> Tensor:
    """Turn a tensor or array into (3, height, width) uint8."""
    tensor = torch.as_tensor(image) if isinstance(image, Tensor | np.ndarray) else None
    if tensor is not None and tensor.ndim == 2:  # noqa: PLR2004 -- (height, width)
        tensor = tensor.unsqueeze(0)
    if tensor is None or tensor.ndim != 3 or tensor.shape[0] not in (1, 3):  # noqa: PLR2004
        shape = "" if tensor is None else f" of shape {tuple(tensor.shape)}"
        raise DataError(
            f"{place} is a {type(image).__name__}{shape}: give Pillow images, or tensors of "
            "shape (3, height, width)"
        )
    if tensor.is_floating_point():
        if not (float(tensor.min()) >= 0 and float(tensor.max()) <= 1):  # NaN fails too
            raise DataError(
                f"{place} has values outside 0 to 1: leave normalising to data.mean and data.std"
            )
        tensor = (tensor * 255).round().to(torch.uint8)
    if tensor.dtype != torch.uint8:
        raise DataError(f"{place} is of {tensor.dtype}: give uint8, or floats from 0 to 1")
    return tensor.expand(3, -1, -1)


@dataclass(frozen=True)
class ScaledImages:
    """Small grey images in memory that are scaled when read.

    Attributes:
        small: (n, 1, height, width) float32, 0 to 1.
        image_size: Side of what is read, in pixels.
    """

    small: Tensor
    image_size: int

    def __len__(self) -> int:
        return len(self.small)

    def fetch(self, positions: Tensor) -> Tensor:
        """Read images, scaled bilinearly, the one colour thrice: (n, 3, size, size) uint8."""
        scaled = functional.interpolate(
            self.small[positions],
            size=(self.image_size, self.image_size),
            mode="bilinear",
            align_corners=False,
        )
        return (scaled * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def _stacked(images: list[Bytes], size: int) -> Tensor:
    if not images:
        return torch.empty((0, 3, size, size), dtype=torch.uint8)
    return torch.from_numpy(np.stack(images))


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
