"""Items of a torch data set. This is user code, so any exception is reported with its item."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dse.data.collating import first_of, pair_of
from dse.data.decode import deep, reason_of, shaped
from dse.data.pixels import Bytes, Extremes, Scale, extremes
from dse.data.quiet import quiet
from dse.data.reading import Reading
from dse.data.seeding import random_state_kept, seed_everything
from dse.data.targets import (
    Label,
    Mask,
    TargetReading,
    check_mask,
    check_sizes,
    mask_values,
    scaled_mask,
    upright_size,
)
from dse.digests import derived_seed
from dse.errors import DataError
from dse.user_code import USER_ERRORS, described

_COLOURS = (1, 3)
_LONGEST = 60  # maximum length of a label in a message
_GREY_DIMENSIONS, _COLOUR_DIMENSIONS = 2, 3


@dataclass(frozen=True)
class DatasetImages:
    """Images of a map-style torch data set of (image, target), resized when they are read.

    Masks become the last channel.

    Attributes:
        dataset: data set of Pillow images, or of tensors or arrays of (channels, height, width),
            (height, width, channels) or (height, width) with one or three channels.
        name: name in messages.
        reading: shape of the images after reading.
        scale: scale of values larger than bytes.
        expected: expected target of each item; an item that returns another is an error. None
            disables the check.
        varies: whether the data set's own transforms are random, so that reading an item twice
            gives different images.
        target: how targets are read.
    """

    dataset: Dataset[Any]
    name: str
    reading: Reading
    scale: Scale = Scale()  # noqa: RUF009  # frozen
    expected: Sequence[Label] | None = None
    varies: bool = False
    target: TargetReading = TargetReading()  # noqa: RUF009  # frozen

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # map-style data sets have a length

    def item(self, position: int) -> tuple[Any, Any]:
        """Read one (image, target) as the data set returns it.

        Raises:
            DataError: if the data set's code fails, or returns something else.
        """
        try:
            image, target = self._separated(self.dataset[position])
        except USER_ERRORS as error:
            what = "mask" if self.target.form == "mask" else "label"
            raise DataError(
                f"{self.place(position)} can't be read as (image, {what}): {described(error)}"
            ) from error
        return image, target

    def _separated(self, item: Any) -> tuple[Any, Any]:
        """Return the input and the label of what a data set returns, after its own collate."""
        collate = getattr(self.dataset, "collate_fn", None)
        if collate is not None:
            return tuple(map(first_of, pair_of(collate([item]))))
        return pair_of(item)

    def place(self, position: int) -> str:
        """Return the name of an item for messages."""
        return f"data {self.name!r}: image {position}"

    def unusable(self, position: int, error: Exception) -> DataError:
        """Return an error about an item whose image can't be used."""
        return DataError(f"{self.place(position)} can't be used: {reason_of(error)}")

    def fetch(self, positions: Tensor) -> Tensor:
        """Read images: (n, channels, height, width) uint8, with a mask one channel more.

        Random transforms always get the same seed.

        Raises:
            DataError: if an image can't be read, or has an unsupported type or shape.
        """
        if self.varies:
            return self.varied(positions, seed=0)
        return self._stacked([self._read(one) for one in positions.tolist()])

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
                read.append(self._read(position))
        return self._stacked(read)

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

    def label(self, position: int) -> Label:
        """Read an item's target; see `TargetReading.plain`.

        Raises:
            DataError: if the item can't be read, or its target is of an unsupported kind.
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
        """Check that an item has the target that it had before.

        Raises:
            DataError: if it differs.
        """
        if self.expected is None:
            return
        found, before = self._plain(label, position), self.expected[position]
        if found != before:
            raise DataError(
                f"{self.place(position)} has the {self._word} {found!r}, but {before!r} before: an "
                f"item must always return the same {self._word}, equal to that in the data set's "
                "attributes"
            )

    @property
    def _word(self) -> str:
        return "label" if self.target.form == "class" else "target"

    def _plain(self, label: object, position: int) -> Label:
        try:
            return self.target.plain(label)
        except Exception as error:  # a label may be an object of any class
            raise DataError(
                f"{self.place(position)} has the {self._word} {_shown(label)}: {reason_of(error)}"
            ) from error

    def masks(self, positions: Sequence[int]) -> Iterator[Mask]:
        """Read the masks of some items as they are stored, after the data set's own transforms.

        Raises:
            DataError: if an item can't be read, or its target is no mask.
        """
        with random_state_kept():
            for position in positions:
                seed_everything(derived_seed(0, "item", position))
                yield self._mask(self.item(position)[1], position)

    def counts(self, positions: Sequence[int]) -> Tensor:
        """Return the number of pixels of each class in some masks, (classes,) int64."""
        found = torch.zeros(self.target.classes, dtype=torch.int64)
        for position in positions:
            mask = self.fetch(torch.tensor([position]))[0, -1].flatten().long()
            known = mask[mask != self.target.ignore]
            found += torch.bincount(known, minlength=self.target.classes)
        return found

    def _mask(self, target: object, position: int) -> Mask:
        try:
            values = mask_values(target)
            check_mask(values, self.target)
        except Exception as error:  # a lazy image is only decoded here
            raise self._unfit(position, error) from error
        return values

    def _unfit(self, position: int, error: Exception) -> DataError:
        return DataError(f"{self.place(position)} can't be used: its mask {reason_of(error)}")

    def _stacked(self, items: list[Any]) -> Tensor:
        """Stack what `_read` returned."""
        if items:
            return torch.from_numpy(np.stack(items))
        channels = self.reading.channels + (self.target.form == "mask")
        return torch.empty((0, channels, *self.reading.shape[1:]), dtype=torch.uint8)

    def _read(self, position: int) -> Any:
        image, target = self.item(position)
        self.check_label(target, position)
        values = self._shaped(image, position)
        if self.target.form != "mask":
            return values
        mask = self._mask(target, position)
        pixels = upright_size(image) if isinstance(image, Image.Image) else _size(image)
        try:
            check_sizes(mask, pixels)
        except ValueError as error:
            raise self._unfit(position, error) from error
        return np.concatenate([values, scaled_mask(mask, self.reading)[None]])

    def _shaped(self, image: object, position: int) -> Bytes:
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


def _size(image: object) -> tuple[int, int]:
    """Return width and height of a tensor or array."""
    *_, height, width = array_of(image).shape
    return width, height


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


def _shown(label: object) -> str:
    text = " ".join(repr(label).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def spread(count: int, most: int) -> list[int]:
    """Return positions that are evenly spaced over a data set, first and last included."""
    if count <= most:
        return list(range(count))
    return sorted({round(one * (count - 1) / (most - 1)) for one in range(most)})
