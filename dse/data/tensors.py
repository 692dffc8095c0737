"""Items of a torch data set that are used as they are: signals, spectrograms, volumes, tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dse.data.items import DatasetImages, array_of
from dse.data.pixels import Extremes
from dse.errors import DataError
from dse.inputs import InputSpec, Kind

_IMAGE = 3  # dimensions
_COLOURS = (1, 3)


@dataclass(frozen=True)
class DatasetTensors(DatasetImages):
    """Items of one shape, given to the network without a change; masks become their last channel.

    They are read as (n, ...) uint8, float32 or int64.

    Attributes:
        wanted: shape that every item must have; that of the first item if None.
    """

    wanted: tuple[int, ...] | None = None

    @cached_property
    def inputs(self) -> InputSpec:
        """Shape and type of the items.

        Raises:
            DataError: if the first item can't be used.
        """
        try:
            _, inputs = as_tensor(self.item(0)[0])
        except (TypeError, ValueError) as error:
            raise self.unusable(0, error) from error
        if self.wanted is not None and inputs.shape != self.wanted:
            raise DataError(
                f"{self.place(0)} has the shape {inputs.text}, and data.input is "
                f"{list(self.wanted)}: change one of them"
            )
        return inputs

    def extremes(self, position: int) -> Extremes:
        """Return the range of bytes, because values are not scaled."""
        self.item(position)
        return Extremes("bytes")

    def content(self, position: int) -> bytes:
        """Return an item's content as bytes, to compare it with itself."""
        content: bytes = self._read(position).numpy().tobytes()
        return content

    def _stacked(self, items: list[Any]) -> Tensor:
        if items:
            return torch.stack(items)
        first, *rest = self.inputs.shape
        shape = (first + 1, *rest) if self.target.form == "mask" else self.inputs.shape
        return torch.empty((0, *shape), dtype=self.inputs.dtype)

    def _read(self, position: int) -> Any:
        given, target = self.item(position)
        self.check_label(target, position)
        expected = self.inputs
        try:
            found, inputs = as_tensor(given)
        except (TypeError, ValueError) as error:
            raise self.unusable(position, error) from error
        if inputs != expected:
            raise DataError(
                f"{self.place(position)} has the shape {inputs.text}, image 0 {expected.text}: "
                "give all items one shape and type, for example by padding"
            )
        if self.target.form != "mask":
            return found
        mask = torch.from_numpy(self._mask(target, position))
        if expected.names or tuple(mask.shape) != expected.shape[1:] or mask.ndim == 0:
            raise DataError(
                f"{self.place(position)} has a mask of shape {tuple(mask.shape)}, and itself "
                f"{expected.text}: give a class for each place, as in (64, 64) for 5x64x64"
            )
        return torch.cat([found, mask[None].to(found.dtype)])


def is_image(item: object, wanted: tuple[int, ...] | None) -> bool:
    """Return whether an item is an image of one or three colours, to be brought to bytes.

    Args:
        item: what a data set returns as input.
        wanted: `data.input`. Tensors of this very shape are used as they are. Otherwise those of
            one or three channels, or of two dimensions, count as images.
    """
    if isinstance(item, Image.Image):
        return True
    if not isinstance(item, Tensor | np.ndarray):
        return False
    if wanted is not None and (tuple(item.shape) == wanted or not _of_images(wanted)):
        return False
    try:
        array_of(item)
    except TypeError:
        return False
    return True


def _of_images(shape: tuple[int, ...]) -> bool:
    return len(shape) == _IMAGE and shape[0] in _COLOURS


def as_tensor(given: object) -> tuple[Tensor, InputSpec]:
    """Convert one input, or several of one shape, to one tensor.

    Args:
        given: tensor, array or numbers; or a dictionary or tuple of such.

    Returns:
        The tensor, of bytes, float32 or int64, and its description.

    Raises:
        TypeError: if it is anything else.
        ValueError: if several inputs have different shapes.
    """
    if isinstance(given, Mapping):
        if odd := [key for key in given if not isinstance(key, str)]:
            raise TypeError(f"one of its inputs is named {odd[0]!r}: name each by a string")
        return _joined(given)
    if isinstance(given, tuple | list) and any(
        isinstance(one, Tensor | np.ndarray) for one in given
    ):
        return _joined({str(place): value for place, value in enumerate(given)})
    tensor = _plain(given)
    return tensor, InputSpec(shape=tuple(tensor.shape), kind=_kind(tensor))


def _joined(given: Mapping[str, object]) -> tuple[Tensor, InputSpec]:
    named = {name: _plain(value) for name, value in given.items()}
    kinds = tuple(
        "bool" if "bool" in str(getattr(value, "dtype", "")) else _kind(named[name])
        for name, value in given.items()
    )
    if not named:
        raise TypeError("it is empty: give at least one input")
    if len(named) == 1:
        (tensor,) = named.values()
        return tensor, InputSpec(shape=tuple(tensor.shape), kind=_kind(tensor))
    shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"its inputs have different shapes ({shapes}): give inputs of one shape, or join them "
            "in the network's own code"
        )
    kind: Kind = "float32" if "float32" in map(_kind, named.values()) else "int64"
    parts = [one.to(torch.int64 if kind == "int64" else torch.float32) for one in named.values()]
    joined = torch.stack(parts)
    return joined, InputSpec(shape=tuple(joined.shape), kind=kind, names=tuple(named), kinds=kinds)


def _kind(tensor: Tensor) -> Kind:
    return "int64" if tensor.dtype == torch.int64 else "float32"


def _plain(value: object) -> Tensor:
    """Convert a tensor, array or numbers to bytes, float32 or int64."""
    if isinstance(value, Tensor):
        tensor = value.detach().cpu()
    elif isinstance(value, np.ndarray | np.generic) or _is_numbers(value):
        tensor = torch.as_tensor(np.array(value))  # a copy: torch takes no negative strides
    else:
        raise TypeError(
            f"it is a {type(value).__name__}: give Pillow images, tensors, or a dictionary of them"
        )
    if tensor.is_complex():
        raise TypeError("it holds complex numbers: give their real and imaginary parts as channels")
    if tensor.dtype == torch.uint8 and tensor.ndim > 1:
        return tensor
    if tensor.is_floating_point():
        tensor = tensor.float()
        if not bool(tensor.isfinite().all()):
            raise ValueError("it holds NaN or infinity")
        return tensor
    return tensor.long()


def _is_numbers(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
