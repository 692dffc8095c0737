"""Reads the labels of torch data sets.

A data set's attributes (`targets`, `classes`, ...) are fast to read, but may differ from what its
items return: a `target_transform` changes only the items. An attribute is therefore compared with a
sample of the items, and used only if they agree.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, cast

import numpy as np
from torch.utils.data import ConcatDataset, Subset

from dse.data.items import DatasetImages, spread
from dse.data.split import Positions
from dse.data.targets import Label, TargetReading
from dse.errors import DataError

Classes = Sequence[int | str]

_ATTRIBUTES = ("targets", "_labels", "labels", "y", "_samples", "samples", "imgs")
_SAMPLE = 32  # items sampled over the whole data set, in addition to two per label
_MOST_SAMPLED = 256  # maximum number of items per label; all others are checked when they are read


@dataclass(frozen=True)
class Labelled:
    """The labels of one data set.

    Attributes:
        values: target of each item: a number or a name, or several values.
        names: names of the numbers; None if no reliable names are known.
        notes: one line per decision.
    """

    values: Sequence[Label]
    names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def read_labels(images: DatasetImages) -> Labelled:
    """Read a data set's labels from an attribute if its items agree with it, else from the items.

    Raises:
        DataError: if an item can't be read, or its label is of an unsupported kind.
    """
    dataset, count = images.dataset, len(images)
    seen: dict[int, Label] = {}

    def label(position: int) -> Label:
        if position not in seen:
            seen[position] = images.label(position)
        return seen[position]

    note = ""
    for attribute in _ATTRIBUTES:
        held = _values(_attribute(dataset, attribute), count, images.target)
        if held is None:
            continue
        differs = next((one for one in _sample(held) if label(one) != held[one]), None)
        if differs is None and not _transforms_targets(dataset):
            return Labelled(held, output_names(dataset))
        if differs is not None:
            note = (
                f"labels are those of the items: {attribute!r} of {images.name} says "
                f"{held[differs]!r} of image {differs}, the item {label(differs)!r}"
            )
    values = [label(position) for position in range(count)]
    if note:  # names belong to the attribute's numbers, which differ from the items'
        return Labelled(values, None, (f"{note}; so they are numbered, not named",))
    return Labelled(values, output_names(dataset))


def combine(
    train: Labelled, validation: Labelled | None, *, name: str
) -> tuple[tuple[str, ...], Positions, Positions | None]:
    """Number the labels of both data sets consistently.

    Args:
        train: labels of the training images.
        validation: labels of the validation images, if there are any.
        name: name of the data in messages.

    Returns:
        The labels' names, and the label numbers of training and validation images.

    Raises:
        DataError: if the data sets don't match, or a label has no name; the message names it.
    """
    known = [train] if validation is None else [train, validation]
    classes = [cast("Classes", one.values) for one in known]
    if len({isinstance(value, str) for one in classes for value in one}) > 1:
        raise DataError(f"data {name!r}: some labels are names and others numbers: give one kind")
    if all(isinstance(value, str) for one in classes for value in one):
        found = [str(value) for value in dict.fromkeys(classes[0])]
        given = train.names or ()
        names = given if set(found) <= set(given) else tuple(sorted(found))
        order: dict[int | str, int] = {one: number for number, one in enumerate(names)}
        orders = [order] * len(known)
    elif train.names is not None:
        names = train.names
        orders = [_numbered(one, names, name) for one in known]
    else:
        numbers = sorted({int(value) for value in classes[0]})
        names = tuple(map(str, numbers))
        orders = [{value: place for place, value in enumerate(numbers)}] * len(known)
    parts = ("training", "validation")
    targets = [
        np.array(list(_looked_up(one, order, f"data {name!r}: {part} image")), np.int64)
        for one, order, part in zip(classes, orders, parts, strict=False)
    ]
    return names, targets[0], targets[1] if targets[1:] else None


def _numbered(one: Labelled, names: tuple[str, ...], name: str) -> dict[int | str, int]:
    """Return the index of each of a data set's label numbers in the training set's names."""
    own = one.names or names
    if own == names:
        return {number: number for number in range(len(names))}
    if unknown := sorted(set(own) - set(names)):
        raise DataError(
            f"data {name!r}: the validation set names a class {unknown[0]!r}, which the training "
            "set has not: both need the same classes"
        )
    return {number: names.index(one) for number, one in enumerate(own)}


def _looked_up(values: Classes, order: dict[int | str, int], place: str) -> Iterator[int]:
    for position, value in enumerate(values):
        if isinstance(value, int) and value < 0:
            raise DataError(f"{place} {position} has the label {value}: leave such images out")
        if value not in order:
            whole = isinstance(value, int) and list(order) == list(range(len(order)))
            outside = (
                f"a label is outside 0 to {len(order) - 1}, for which there are names"
                if whole
                else f"the training images have the labels {', '.join(map(str, list(order)[:12]))}"
            )
            raise DataError(f"{place} {position} has the label {value!r}: {outside}")
        yield order[value]


def _attribute(dataset: Any, name: str) -> Any:
    try:
        return getattr(dataset, name, None)
    except Exception:  # noqa: BLE001  # properties are user code; labels are read from the items
        return None


def _values(held: Any, count: int, target: TargetReading) -> list[Label] | None:
    """Return the targets that an attribute holds, one per item; None if it holds anything else."""
    try:
        if held is None or isinstance(held, str | dict) or len(held) != count:
            return None
        listed = list(held)
        first = listed[0] if listed else None
        paired = isinstance(first, tuple) and isinstance(first[0], str | PurePath)
        if paired or (isinstance(first, tuple) and target.form == "class"):  # (path, label)
            listed = [one[-1] for one in listed]
        return [target.plain(one) for one in listed]
    except Exception:  # noqa: BLE001  # any user object; labels are read from the items
        return None


def _sample(values: Sequence[Label]) -> list[int]:
    """Return the first and last position of each label, and some over the whole data set."""
    first: dict[Label, int] = {}
    last: dict[Label, int] = {}
    for position, value in enumerate(values):
        first.setdefault(value, position)
        last[value] = position
    edges = sorted({*first.values(), *last.values()})[:_MOST_SAMPLED]
    return sorted({*edges, *spread(len(values), _SAMPLE)})


def _transforms_targets(dataset: Any) -> bool:
    """Return whether the data set transforms labels, so that a sample can't be relied on."""
    return _attribute(dataset, "target_transform") is not None or any(
        _transforms_targets(one) for one in _inner(dataset)
    )


def _inner(dataset: Any) -> Sequence[Any]:
    """Return the data sets inside torch's own wrappers."""
    if isinstance(dataset, Subset):
        return (dataset.dataset,)
    return tuple(dataset.datasets) if isinstance(dataset, ConcatDataset) else ()


def output_names(dataset: Any) -> tuple[str, ...] | None:
    """Return the names of a data set's label numbers; None if they are missing or ambiguous."""
    readers: tuple[Callable[[Any], tuple[str, ...] | None], ...] = (_by_number, _by_order)
    for read in readers:
        if (names := read(dataset)) is not None:
            return names
    inner = {output_names(one) for one in _inner(dataset)}
    return next(iter(inner)) if len(inner) == 1 else None


def _by_number(dataset: Any) -> tuple[str, ...] | None:
    """Return names by `class_to_idx`, which maps names to numbers."""
    held = _attribute(dataset, "class_to_idx")
    try:
        numbers = {int(number): str(one) for one, number in dict(held or {}).items()}
    except Exception:  # noqa: BLE001  # any user object
        return None
    if not numbers or sorted(numbers) != list(range(len(numbers))):
        return None
    return tuple(numbers[one] for one in range(len(numbers)))


def _by_order(dataset: Any) -> tuple[str, ...] | None:
    """Return names by `classes` or `categories`, with numbers appended to equal names."""
    held = _attribute(dataset, "classes")
    held = _attribute(dataset, "categories") if held is None else held
    try:
        names = [one if isinstance(one, str) else _joined(one) for one in list(held or ())]
    except Exception:  # noqa: BLE001  # any user object
        return None
    if not names:
        return None
    return tuple(
        f"{one} ({number})" if names.count(one) > 1 else one for number, one in enumerate(names)
    )


def _joined(name: object) -> str:
    return ", ".join(map(str, name)) if isinstance(name, list | tuple) else str(name)
