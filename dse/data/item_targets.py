"""The targets of torch data sets: classes, values or masks, with the names of the outputs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from dse.data.items import DatasetImages
from dse.data.labels import Labelled, combine, output_names, read_labels
from dse.data.sources import Values
from dse.data.split import Positions
from dse.data.targets import Label, TargetReading, numbered_classes
from dse.errors import DataError


@dataclass(frozen=True, kw_only=True)
class PoolTargets:
    """The targets of one data set.

    Attributes:
        numbers: label numbers, (n,) int64; zeros if each item has values or a mask.
        values: values of each item, (n, outputs) float32; None for other targets.
        expected: target that each item must return; None for masks.
    """

    numbers: Positions
    values: Values | None = None
    expected: Sequence[Label] | None = None


@dataclass(frozen=True, kw_only=True)
class ItemTargets:
    """The targets of the training and the validation set.

    Attributes:
        labels: names of the outputs.
        pools: the targets of each set.
        target: how they are read.
        notes: one line per decision.
    """

    labels: tuple[str, ...]
    pools: tuple[PoolTargets, ...]
    target: TargetReading
    notes: tuple[str, ...] = ()


def item_targets(
    pools: Sequence[DatasetImages], *, name: str, labels: tuple[str, ...] | None
) -> ItemTargets:
    """Read the targets of all items.

    Args:
        pools: the training set, and the validation set if there is one.
        name: name of the data in messages.
        labels: the study's `data.labels`, which names a mask's classes in their order.

    Raises:
        DataError: if an item can't be read, its target is of another form, or has no name.
    """
    target = pools[0].target
    if target.form == "mask":
        return _masks(pools, name=name, labels=labels)
    known = [read_labels(images) for images in pools]
    notes = tuple(note for one in known for note in one.notes)
    if target.form != "class":
        return replace(_values(pools, known, name=name), notes=notes)
    names, *numbers = combine(known[0], known[1] if known[1:] else None, name=name)
    found = tuple(
        PoolTargets(numbers=one, expected=own.values)
        for one, own in zip(numbers, known, strict=False)
        if one is not None
    )
    return ItemTargets(labels=names, pools=found, target=target, notes=notes)


def _values(pools: Sequence[DatasetImages], known: Sequence[Labelled], *, name: str) -> ItemTargets:
    """Return the values of all items, which must be equally many."""
    rows = [[one if isinstance(one, tuple) else () for one in own.values] for own in known]
    width = len(rows[0][0])
    for images, own in zip(pools, rows, strict=True):
        for position, row in enumerate(own):
            if len(row) != width:
                raise DataError(
                    f"{images.place(position)} has {len(row)} values to predict, and training "
                    f"image 0 has {width}: give the same number for each"
                )
    given = known[0].names
    if given is not None and len(given) != width:
        raise DataError(
            f"data {name!r}: the training set names {len(given)} classes, and its items have "
            f"{width} values: give both the same number"
        )
    return ItemTargets(
        labels=given or tuple(map(str, range(width))),
        pools=tuple(
            PoolTargets(
                numbers=np.zeros(len(own), dtype=np.int64),
                values=np.array(own, dtype=np.float32),
                expected=own,
            )
            for own in rows
        ),
        target=pools[0].target,
    )


def _masks(
    pools: Sequence[DatasetImages], *, name: str, labels: tuple[str, ...] | None
) -> ItemTargets:
    """Return the classes of masks: those that are named, or all that the masks hold."""
    names = labels or output_names(pools[0].dataset)
    target = pools[0].target
    if names is None:
        masks = chain.from_iterable(images.masks(range(len(images))) for images in pools)
        place = f"data {name!r}: the masks"
        try:
            names = numbered_classes(masks, ignore=target.ignore, place=place)
        except ValueError as error:
            raise DataError(str(error)) from error
    if len(names) < 2:  # noqa: PLR2004  # nothing to tell apart
        where = "data.labels" if labels else f"data {name!r}"
        raise DataError(f"{where} names {names[0]!r} alone: masks need two classes or more")
    zeros = tuple(PoolTargets(numbers=np.zeros(len(one), dtype=np.int64)) for one in pools)
    return ItemTargets(labels=names, pools=zeros, target=replace(target, classes=len(names)))
