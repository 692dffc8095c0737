"""The items of a torch data set: other people's code, so whatever it raises names the item."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dse.data.decode import deep, quiet, reason_of, square
from dse.data.images import stacked
from dse.data.pixels import Bytes, Extremes, Scale, extremes
from dse.errors import DataError

_COLOURS = (1, 3)
_LONGEST = 60  # characters of a label in a message
_GREY_DIMENSIONS, _COLOUR_DIMENSIONS = 2, 3


@dataclass(frozen=True)
class DatasetImages:
    """Images of a map-style torch data set of (image, label), scaled when read.

    Attributes:
        dataset: Its images are Pillow images, or tensors or arrays of (channels, height, width),
            (height, width, channels) or (height, width) with one or three channels.
        name: What messages call it.
        image_size: Side of what is read, in pixels.
        scale: Of values beyond bytes.
        expected: The label of each item as it was understood; an item that gives another one
            when it is read is refused. None doesn't check.
        varies: The data set's own transforms are random: an item is another image each time.
    """

    dataset: Dataset[Any]
    name: str
    image_size: int
    scale: Scale = Scale()  # noqa: RUF009  # frozen
    expected: Sequence[int | str] | None = None
    varies: bool = False

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
                f"{self.place(position)} can't be read as (image, label): "
                f"{type(error).__name__}: {reason_of(error)}"
            ) from error
        return image, label

    def place(self, position: int) -> str:
        """Name an item in a message."""
        return f"data {self.name!r}: image {position}"

    def unusable(self, position: int, error: Exception) -> DataError:
        """Name an item whose image can't be used."""
        return DataError(f"{self.place(position)} can't be used: {reason_of(error)}")

    def fetch(self, positions: Tensor) -> Tensor:
        """Read images: (n, 3, size, size) uint8; of those that vary, always the same variation.

        Raises:
            DataError: An image can't be read, or has an unknown form.
        """
        if self.varies:
            return self.varied(positions, seed=0)
        return stacked([self._square(one) for one in positions.tolist()], self.image_size)

    def varied(self, positions: Tensor, *, seed: int) -> Tensor:
        """Read images, varied by the data set's own transforms, the same way for the same seed.

        Args:
            positions: (n,) int64.
            seed: Of torch's, numpy's and Python's random numbers while each is read; all three are
                left as they were.

        Returns:
            (n, 3, size, size) uint8.

        Raises:
            DataError: As for `fetch`.
        """
        read = []
        with random_state_kept():
            for position in positions.tolist():
                seed_everything(_item_seed(seed, position))
                read.append(self._square(position))
        return stacked(read, self.image_size)

    def extremes(self, position: int) -> Extremes:
        """Read an item, and find its smallest and largest value where they are more than bytes.

        Raises:
            DataError: As for `fetch`.
        """
        image, _ = self.item(position)
        try:
            if isinstance(image, Image.Image):
                with quiet:
                    image.load()
                return extremes(np.asarray(image)) if deep(image) else Extremes("bytes")
            return extremes(array_of(image))
        except Exception as error:  # a lazy image decodes only now
            raise self.unusable(position, error) from error

    def label(self, position: int) -> int | str:
        """Read an item's label; see `plain_label`.

        Raises:
            DataError: The item can't be read, or its label is of no kind that can be learned.
        """
        return self._plain(self.item(position)[1], position)

    def _plain(self, label: object, position: int) -> int | str:
        try:
            return plain_label(label)
        except Exception as error:  # a label may be an object of any class
            raise DataError(
                f"{self.place(position)} has the label {_shown(label)}: {reason_of(error)}"
            ) from error

    def _square(self, position: int) -> Bytes:
        image, label = self.item(position)
        if self.expected is not None:
            found, before = self._plain(label, position), self.expected[position]
            if found != before:
                raise DataError(
                    f"{self.place(position)} gives the label {found!r}, and {before!r} was "
                    "understood: an item must have the same label each time, the one that the data "
                    "set's attributes say"
                )
        try:
            if not isinstance(image, Image.Image):
                values = self.scale.to_bytes(array_of(image))
                if values.shape == (3, self.image_size, self.image_size):
                    return np.ascontiguousarray(values)
                image = Image.fromarray(np.ascontiguousarray(values.transpose(1, 2, 0)))
            with quiet:
                return square(image, self.image_size, scale=self.scale)
        except Exception as error:  # a lazy image decodes only now
            raise self.unusable(position, error) from error


def array_of(image: object) -> npt.NDArray[Any]:
    """Turn an item's tensor or array into three equal or different colours first.

    Returns:
        (3, height, width), of its own type.

    Raises:
        TypeError: It is neither, or has another shape.
    """
    if isinstance(image, Tensor):
        plain = image.detach().cpu()
        array = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    elif isinstance(image, np.ndarray):
        array = np.asarray(image)
    else:
        raise TypeError(
            f"it is a {type(image).__name__}: give Pillow images, or tensors of shape "
            "(3, height, width)"
        )
    shape = array.shape
    if array.ndim == _GREY_DIMENSIONS:
        array = array[None]
    elif array.ndim == _COLOUR_DIMENSIONS and shape[0] not in _COLOURS and shape[2] in _COLOURS:
        array = array.transpose(2, 0, 1)
    if array.ndim != _COLOUR_DIMENSIONS or array.shape[0] not in _COLOURS or not array.size:
        raise TypeError(
            f"it is a {type(image).__name__} of shape {shape}: give Pillow images, or tensors of "
            "shape (3, height, width)"
        )
    return np.broadcast_to(array, (3, *array.shape[1:]))


def plain_label(label: object) -> int | str:
    """Bring a label of any usual kind to a number or a name.

    Args:
        label: A whole number of any type, a tensor or array of one, a name, or a one-hot vector.

    Raises:
        TypeError: It is something else, such as several labels at once.
    """
    if isinstance(label, Enum):
        return plain_label(label.value)
    if isinstance(label, str):
        return str(label)
    if isinstance(label, bool | int | np.integer | np.bool_):
        return int(label)
    if isinstance(label, float | np.floating):
        if float(label).is_integer():
            return int(label)
        raise TypeError("labels are not whole numbers: give one class for each image")
    if isinstance(label, Tensor):
        label = label.detach().cpu().numpy()
    if isinstance(label, list | tuple):
        label = np.asarray(label)
    if isinstance(label, np.ndarray):
        return _label_of_array(label)
    raise TypeError(
        f"labels are not whole numbers: one class for each image is needed, not {type(label)}"
    )


def _label_of_array(array: npt.NDArray[Any]) -> int | str:
    if array.size == 1:
        return plain_label(array.reshape(()).item())
    if array.ndim == 1 and array.size and set(np.unique(array).tolist()) == {0, 1}:
        hot = np.flatnonzero(array)
        if len(hot) == 1:
            return int(hot[0])
        raise TypeError(f"it is {len(hot)} labels at once: one class for each image is needed")
    raise TypeError("labels are not whole numbers: one class for each image is needed")


def _shown(label: object) -> str:
    text = " ".join(repr(label).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _item_seed(seed: int, position: int) -> int:
    digest = hashlib.sha256(f"{seed}:item:{position}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def seed_everything(seed: int) -> None:
    """Seed the random numbers that transforms draw from: torch's on the CPU, numpy's, Python's."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # transforms of others draw from it
    random.seed(seed)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put all global random numbers back to where they were."""
    held = torch.default_generator.get_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        torch.default_generator.set_state(held[0])
        np.random.set_state(held[1])  # noqa: NPY002
        random.setstate(held[2])


def spread(count: int, most: int) -> list[int]:
    """Choose positions evenly over a data set, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(one * (count - 1) / (most - 1)) for one in range(most)})
