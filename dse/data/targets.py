"""Targets of items, as plain values that can be compared: a class, several values, or a mask."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from dse.data.reading import Reading

Form = Literal["class", "labels", "values", "mask"]
Label = int | str | tuple[float, ...]
Mask = npt.NDArray[np.uint8]

MASK_MODES = ("1", "L", "P", "I", "I;16")  # of masks: whole numbers
LARGEST_CLASS = 255
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # orientations that exchange width and height
_FEWEST = 2  # classes to tell apart
_PLANE = 2  # dimensions of a mask


@dataclass(frozen=True, kw_only=True)
class TargetReading:
    """How the target of an item is read.

    Attributes:
        form: what it is: one class, any number of labels, values, or a mask of classes.
        classes: number of a mask's classes; 0 while that is unknown.
        ignore: value of a mask's pixels that belong to no class.
    """

    form: Form = "class"
    classes: int = 0
    ignore: int = LARGEST_CLASS

    def plain(self, target: object) -> Label:
        """Convert a target to a value that can be compared; a mask, which isn't read here, to 0.

        Raises:
            TypeError: if it has another form.
            ValueError: if a value isn't finite.
        """
        if self.form == "mask":
            return 0
        return plain_label(target) if self.form == "class" else plain_values(target, self.form)


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


def plain_values(target: object, form: Form) -> tuple[float, ...]:
    """Convert the values of one item to numbers that float32 holds.

    Args:
        target: a number, or a vector of numbers as a tensor, array or list.
        form: "labels" for 0 and 1, "values" for any numbers.

    Raises:
        TypeError: if it is anything else.
        ValueError: if a number is none, or for labels neither 0 nor 1.
    """
    wanted = "a 0 or 1 for each label" if form == "labels" else "a number, or a vector of them"
    array = array_like(target)
    if array is None or array.dtype.kind not in "buif" or array.ndim > 1 or not array.size:
        kind = type(target).__name__ if array is None else f"{array.dtype} of shape {array.shape}"
        raise TypeError(f"it is {kind}: give {wanted}")
    values = array.reshape(-1).astype(np.float64)
    if not bool((np.abs(values) <= np.finfo(np.float32).max).all()):  # not NaN either
        raise ValueError(f"it holds NaN, infinity or a number beyond float32: give {wanted}")
    if form == "labels" and not bool(np.isin(values, (0, 1)).all()):
        odd = values[~np.isin(values, (0, 1))][0]
        raise ValueError(f"it holds {odd:g}: give {wanted}")
    return tuple(values.astype(np.float32).tolist())


def array_like(target: object) -> npt.NDArray[Any] | None:
    """Return the array of numbers that an object holds; None if it is no such object."""
    if isinstance(target, Tensor):
        plain = target.detach().cpu()
        return (plain.float() if plain.dtype.itemsize == 2 else plain).numpy()  # noqa: PLR2004  # bfloat16
    if isinstance(target, bool | int | float | np.ndarray | np.generic):
        return np.asarray(target)
    if isinstance(target, list | tuple):
        try:
            return np.asarray(target)
        except ValueError:  # lists of different lengths
            return None
    return None


def mask_values(given: object) -> Mask:
    """Return the classes of a mask's pixels, as they are stored: (height, width), or any shape.

    Args:
        given: a Pillow image, or a tensor or array of whole numbers; a first dimension of 1 before
            height and width is dropped.

    Raises:
        TypeError: if it holds colours or fractions, or is something else; the message goes on after
            the mask's name.
        ValueError: if it holds numbers that are no classes.
    """
    if isinstance(given, Image.Image):
        if given.mode not in MASK_MODES:
            raise TypeError(
                f"has colours ({given.mode}): give the number of each pixel's class as a grey "
                "value or an index"
            )
        values = np.asarray(given)
    else:
        found = array_like(given)
        if found is None or found.dtype.kind not in "bui":
            kind = type(given).__name__ if found is None else found.dtype
            raise TypeError(f"is {kind}: give a whole number for each pixel, as uint8 or int64")
        values = found[0] if found.ndim > _PLANE and found.shape[0] == 1 else found
    if not values.size:
        raise ValueError("is empty: give a number for each pixel")
    if values.min() < 0 or values.max() > LARGEST_CLASS:
        odd = values.min() if values.min() < 0 else values.max()
        raise ValueError(f"has the value {odd}: classes are numbers from 0 to 254")
    return values.astype(np.uint8)


def check_mask(values: Mask, reading: TargetReading) -> None:
    """Check that a mask holds known classes alone; any do while their number is unknown.

    Raises:
        ValueError: if it holds another.
    """
    wrong = values[(values >= (reading.classes or np.inf)) & (values != reading.ignore)]
    if len(wrong):
        raise ValueError(
            f"has the class {wrong[0]}, and there are {reading.classes} labels, from 0: name "
            "all in data.labels, or set task.ignore"
        )


def check_sizes(values: Mask, size: tuple[int, int]) -> None:
    """Check that a mask has the size of its image, given as width and height in pixels.

    Raises:
        ValueError: if it has another.
    """
    if values.ndim != _PLANE:
        raise ValueError(f"has the shape {values.shape}: give (height, width)")
    height, width = values.shape
    if (width, height) != size:
        raise ValueError(
            f"has {width}x{height} pixels, and its image {size[0]}x{size[1]}: give both one size"
        )


def scaled_mask(values: Mask, reading: Reading) -> Mask:
    """Scale a mask as its image is scaled, by the nearest pixel: (height, width)."""
    height, width = values.shape
    scaled = Image.fromarray(values).resize(
        (reading.width, reading.height),
        Image.Resampling.NEAREST,
        box=reading.box(width, height),
    )
    return np.asarray(scaled, dtype=np.uint8)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return an image's width and height in pixels after it was turned upright."""
    try:
        turned = image.getexif().get(_ORIENTATION) in _TURNED
    except Exception:  # noqa: BLE001  # metadata may be broken while the image is intact
        turned = False
    return image.size[::-1] if turned else image.size


def numbered_classes(masks: Iterable[Mask], *, ignore: int, place: str) -> tuple[str, ...]:
    """Return a number for each class that masks hold, from 0 to the largest.

    Args:
        masks: all masks.
        ignore: value of pixels that belong to no class.
        place: where they lie, for messages.

    Raises:
        ValueError: if they hold one class, or only 0 and the ignored value.
    """
    seen: set[int] = set()
    for values in masks:
        seen |= set(np.unique(values).tolist())
    known = seen - {ignore}
    if known == {0} and ignore in seen:
        raise ValueError(
            f"{place} hold only 0 and {ignore}, which task.ignore leaves out: write 1 for the "
            "class, or set task.ignore to another number"
        )
    names = tuple(map(str, range(max(known, default=0) + 1)))
    if len(names) < _FEWEST:
        raise ValueError(f"{place} hold one class: a segmentation needs two or more")
    return names
