"""Items of a torch data set. This is user code, so any exception is reported with its item."""

import random
from collections.abc import Iterator, Mapping, Sequence
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

from dse.data.decode import deep, reason_of, shaped
from dse.data.images import stacked
from dse.data.pixels import Bytes, Extremes, Scale, extremes
from dse.data.quiet import quiet
from dse.data.reading import Reading
from dse.digests import derived_seed
from dse.errors import DataError
from dse.user_code import USER_ERRORS, described

_COLOURS = (1, 3)
_LONGEST = 60  # maximum length of a label in a message
_GREY_DIMENSIONS, _COLOUR_DIMENSIONS = 2, 3


@dataclass(frozen=True)
class DatasetImages:
    """Images of a map-style torch data set of (image, label), resized when they are read.

    Attributes:
        dataset: data set of Pillow images, or of tensors or arrays of (channels, height, width),
            (height, width, channels) or (height, width) with one or three channels.
        name: name in messages.
        reading: shape of the images after reading.
        scale: scale of values larger than bytes.
        expected: expected label of each item; an item that returns another label is an error. None
            disables the check.
        varies: whether the data set's own transforms are random, so that reading an item twice
            gives different images.
    """

    dataset: Dataset[Any]
    name: str
    reading: Reading
    scale: Scale = Scale()  # noqa: RUF009  # frozen
    expected: Sequence[int | str] | None = None
    varies: bool = False

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # map-style data sets have a length

    def item(self, position: int) -> tuple[Any, Any]:
        """Read one (image, label) as the data set returns it.

        Raises:
            DataError: if the data set's code fails, or returns something else.
        """
        try:
            image, label = self._separated(self.dataset[position])
        except USER_ERRORS as error:
            raise DataError(
                f"{self.place(position)} can't be read as (image, label): {described(error)}"
            ) from error
        return image, label

    def _separated(self, item: Any) -> tuple[Any, Any]:
        """Return the input and the label of what a data set returns, after its own collate."""
        collate = getattr(self.dataset, "collate_fn", None)
        if collate is not None:
            return tuple(map(_first, _pair(collate([item]))))
        return _pair(item)

    def place(self, position: int) -> str:
        """Return the name of an item for messages."""
        return f"data {self.name!r}: image {position}"

    def unusable(self, position: int, error: Exception) -> DataError:
        """Return an error about an item whose image can't be used."""
        return DataError(f"{self.place(position)} can't be used: {reason_of(error)}")

    def fetch(self, positions: Tensor) -> Tensor:
        """Read images: (n, channels, height, width) uint8.

        Random transforms always get the same seed.

        Raises:
            DataError: if an image can't be read, or has an unsupported type or shape.
        """
        if self.varies:
            return self.varied(positions, seed=0)
        return stacked([self._shaped(one) for one in positions.tolist()], self.reading)

    def varied(self, positions: Tensor, *, seed: int) -> Tensor:
        """Read images with the data set's own random transforms, reproducibly for a seed.

        Args:
            positions: (n,) int64.
            seed: seed of the random numbers of torch, numpy and Python while an image is read; the
                states of all three are restored.

        Returns:
            (n, channels, height, width) uint8.

        Raises:
            DataError: see `fetch`.
        """
        read = []
        with random_state_kept():
            for position in positions.tolist():
                seed_everything(derived_seed(seed, "item", position))
                read.append(self._shaped(position))
        return stacked(read, self.reading)

    def extremes(self, position: int) -> Extremes:
        """Read an item and return its smallest and largest value if they are larger than bytes.

        Raises:
            DataError: see `fetch`.
        """
        image, _ = self.item(position)
        try:
            if isinstance(image, Image.Image):
                with quiet:
                    image.load()
                return extremes(np.asarray(image)) if deep(image) else Extremes("bytes")
            return extremes(array_of(image))
        except Exception as error:  # a lazy image is only decoded here
            raise self.unusable(position, error) from error

    def label(self, position: int) -> int | str:
        """Read an item's label; see `plain_label`.

        Raises:
            DataError: if the item can't be read, or its label is of an unsupported kind.
        """
        return self._plain(self.item(position)[1], position)

    def content(self, position: int) -> bytes:
        """Return an image's content as bytes, to compare it with itself.

        Raises:
            DataError: if it can't be read, or has an unsupported type or shape.
        """
        image, _ = self.item(position)
        try:
            if isinstance(image, Image.Image):
                return f"{image.mode}{image.size}".encode() + image.tobytes()
            array = array_of(image)
        except Exception as error:  # a lazy image is only decoded here
            raise self.unusable(position, error) from error
        return f"{array.dtype}{array.shape}".encode() + array.tobytes()

    def check_label(self, label: object, position: int) -> None:
        """Check that an item has the label that it had before.

        Raises:
            DataError: if the label differs.
        """
        if self.expected is None:
            return
        found, before = self._plain(label, position), self.expected[position]
        if found != before:
            raise DataError(
                f"{self.place(position)} has the label {found!r}, but {before!r} before: an "
                "item must always return the same label, equal to that in the data set's "
                "attributes"
            )

    def _plain(self, label: object, position: int) -> int | str:
        try:
            return plain_label(label)
        except Exception as error:  # a label may be an object of any class
            raise DataError(
                f"{self.place(position)} has the label {_shown(label)}: {reason_of(error)}"
            ) from error

    def _shaped(self, position: int) -> Bytes:
        image, label = self.item(position)
        self.check_label(label, position)
        try:
            if not isinstance(image, Image.Image):
                values = self.scale.to_bytes(array_of(image))
                if values.shape == self.reading.shape:
                    return np.ascontiguousarray(values)
                image = Image.fromarray(np.ascontiguousarray(values.transpose(1, 2, 0)))
            with quiet:
                return shaped(image, self.reading, scale=self.scale)
        except Exception as error:  # a lazy image is only decoded here
            raise self.unusable(position, error) from error


_LABELS = ("labels", "label", "target", "targets")
"""Keys of a label in an item that is a dictionary."""


def _pair(item: Any) -> tuple[Any, Any]:
    """Return the input and the label of an item, which is a pair or a dictionary of both."""
    if isinstance(item, Mapping):
        key = next((one for one in _LABELS if one in item), None)
        if key is None:
            raise KeyError(f"none of {', '.join(_LABELS)} among {', '.join(map(str, item))}")
        return {name: value for name, value in item.items() if name != key}, item[key]
    given, label = item
    return given, label


def _first(batch: Any) -> Any:
    """Return the only item of a batch."""
    if isinstance(batch, Mapping):
        return {name: value[0] for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(value[0] for value in batch)
    return batch[0]


def array_of(image: object) -> npt.NDArray[Any]:
    """Convert an item's tensor or array to an array with three colours in the first dimension.

    Returns:
        (3, height, width), of the image's own type.

    Raises:
        TypeError: if it is neither a tensor nor an array, or has an unsupported shape.
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
    """Convert a label of any usual kind to a number or a name.

    Args:
        label: whole number of any type, tensor or array of one, name, or one-hot vector.

    Raises:
        TypeError: if it is anything else, such as several labels at once.
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


def seed_everything(seed: int) -> None:
    """Seed the generators that transforms draw from: torch's on the CPU, numpy's and Python's."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # user transforms may draw from it
    random.seed(seed)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore the states of all global random generators on exit."""
    held = torch.default_generator.get_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        torch.default_generator.set_state(held[0])
        np.random.set_state(held[1])  # noqa: NPY002
        random.setstate(held[2])


def spread(count: int, most: int) -> list[int]:
    """Return positions that are evenly spaced over a data set, first and last included."""
    if count <= most:
        return list(range(count))
    return sorted({round(one * (count - 1) / (most - 1)) for one in range(most)})
