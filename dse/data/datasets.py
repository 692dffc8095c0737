"""Data sets of (image, target), from a user's factory or a library, in the common form."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from dse.data.item_targets import item_targets
from dse.data.items import DatasetImages, spread
from dse.data.pixels import Extremes, Scale, decide
from dse.data.randomness import plain_twin, repeatable, varies
from dse.data.reading import Reading
from dse.data.seeding import random_state_kept
from dse.data.sources import Pool, Source
from dse.data.targets import TargetReading
from dse.data.tensors import DatasetTensors, is_image
from dse.errors import DataError
from dse.factories import importable, load_factory
from dse.user_code import USER_ERRORS, described

_CLASSES = TargetReading()
_SAMPLE = 32  # items that are read to find how values are stored


def factory_source(
    spec: str,
    search_path: Path | None,
    *,
    reading: Reading,
    wanted: tuple[int, ...] | None = None,
    target: TargetReading = _CLASSES,
    labels: tuple[str, ...] | None = None,
) -> Source:
    """Call a user's factory for its data sets.

    Args:
        spec: "package.module:factory", a function without arguments that returns two data sets of
            (image, target), for training and validation, and optionally a third: the training
            images in the same order without random transforms, used for selection. Names of labels
            are read from the first one's `classes`, if it has them.
        search_path: folder in which the module is searched first.
        reading: shape of the images after reading.
        wanted: see `dataset_source`.
        target: see `dataset_source`.
        labels: see `dataset_source`.

    Raises:
        DataError: if the factory can't be imported, fails, or returns something else.
    """
    train, validation, *rest = called_factory(spec, search_path)
    return dataset_source(
        train,
        validation,
        plain=rest[0] if rest else None,
        name=spec,
        reading=reading,
        wanted=wanted,
        target=target,
        labels=labels,
    )


def called_factory(spec: str, search_path: Path | None) -> tuple[Any, ...]:
    """Call a user's factory, and check that it returns two or three data sets.

    Raises:
        DataError: see `factory_source`.
    """
    factory = data_factory(spec, search_path)
    try:
        with importable(search_path):  # a factory may import modules when it is called
            made = factory()
    except USER_ERRORS as error:
        raise DataError(f"data {spec!r} failed: {described(error)}") from error
    several = isinstance(made, tuple | list) and len(made) in (2, 3)
    if not several or not all(_is_indexed(one) for one in made):
        raise DataError(
            f"data {spec!r} returned a {type(made).__name__}: return (train, validation), "
            "two data sets with a length that are indexed by position"
        )
    return tuple(made)


def data_factory(spec: str, search_path: Path | None) -> Callable[..., Any]:
    """Import a factory of data sets, without calling it.

    Raises:
        DataError: if the module doesn't exist, fails on import, or has no such function.
    """
    return load_factory(spec, search_path=search_path, place=f"data {spec!r}", error=DataError)


def _is_indexed(dataset: object) -> bool:
    """Return whether a data set has a length and is indexed by position."""
    try:
        return hasattr(dataset, "__getitem__") and len(dataset) >= 0  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001  # a data set's own code
        return False


def dataset_source(
    train: Dataset[Any],
    validation: Dataset[Any] | None,
    *,
    plain: Dataset[Any] | None = None,
    name: str,
    reading: Reading,
    wanted: tuple[int, ...] | None = None,
    target: TargetReading = _CLASSES,
    labels: tuple[str, ...] | None = None,
) -> Source:
    """Convert torch data sets of (image, target) to a `Source`.

    Args:
        train: training data; the selection part is split off it.
        validation: validation data, if there is any.
        plain: the training images without random transforms.
        name: name of the data in messages.
        reading: shape of the images after reading.
        wanted: shape of items that aren't images of one or three colours; that of the first item if
            None.
        target: how targets are read: a class of each item, any number of labels as zeros and ones,
            numbers, or masks of whole numbers.
        labels: the study's `data.labels`, which names a mask's classes in their order.

    Raises:
        DataError: if an item can't be read, its target is unsupported or has no name, or the data
            sets don't match.
    """
    pools = [
        pool_of(one, name, reading, wanted, target)
        for one in (train, validation)
        if one is not None
    ]
    for part, images in zip(("training", "validation"), pools, strict=False):
        if not len(images):
            raise DataError(f"data {name!r}: the {part} set is empty")
    found = item_targets(pools, name=name, labels=labels)
    scale = _scale(pools)
    checked = [
        replace(
            images,
            expected=own.expected,
            scale=scale,
            target=found.target,
            varies=varies(replace(images, target=found.target)),
        )
        for images, own in zip(pools, found.pools, strict=True)
    ]
    twin, augmentation = _unvaried(checked[0], plain, validation)
    notes = list(found.notes)
    if checked[1:] and checked[1].varies:
        notes.append(
            "the validation set's own transforms are random: each of its images is read in one "
            "random variation"
        )
    own, *other = [
        Pool(images=images, targets=known.numbers, values=known.values)
        for images, known in zip(checked, found.pools, strict=True)
    ]
    return Source(
        labels=found.labels,
        train=replace(own, plain=twin),
        validation=other[0] if other else None,
        notes=tuple(dict.fromkeys([*notes, *scale.notes])),
        augmentation=augmentation,
        pixel_values=_values_text(checked[0], scale),
        form=target.form,
    )


def pool_of(
    dataset: Dataset[Any],
    name: str,
    reading: Reading,
    wanted: tuple[int, ...] | None,
    target: TargetReading = _CLASSES,
) -> DatasetImages:
    """Return a data set's items as images, or as they are if the first is no image."""
    images = DatasetImages(dataset, name, reading, target=target)
    if not len(images) or is_image(images.item(0)[0], wanted):
        return images
    return DatasetTensors(dataset, name, reading, target=target, wanted=wanted)


def _scale(pools: list[DatasetImages]) -> Scale:
    """Find the scale of the values; all items are read if a sample holds more than bytes."""

    def found(most: int | None) -> Iterator[tuple[str, Extremes]]:
        for images in pools:
            for position in spread(len(images), most or len(images)):
                yield images.place(position), images.extremes(position)

    with random_state_kept():
        sample = list(found(_SAMPLE))
        if all(one.kind == "bytes" or _is_unit(one) for _, one in sample):
            return decide(sample)
        return decide(found(None))


def _values_text(images: DatasetImages, scale: Scale) -> str:
    if isinstance(images, DatasetTensors):
        return f"as they are, {images.inputs.text}"
    return scale.text


def _is_unit(one: Extremes) -> bool:
    return one.kind == "floats" and one.low >= 0 and one.high <= 1


def _unvaried(
    train: DatasetImages, plain: Dataset[Any] | None, validation: Dataset[Any] | None
) -> tuple[DatasetImages | None, str]:
    """Return the training images without random transforms, and a text about the augmentation."""
    if plain is not None:
        given = replace(train, dataset=plain, varies=False)
        _check_plain(train, given)
        return given, _augmentation(train, "selection images are the third data set's")
    if not train.varies:
        return None, ""
    twin = plain_twin(train.dataset, validation)
    if twin is not None and not varies(given := replace(train, dataset=twin, varies=False)):
        return given, _augmentation(
            train, "selection images get the validation set's transform instead"
        )
    return None, _augmentation(
        train,
        "each selection image is read in one random variation (to select on plain images, return a "
        "third data set from the factory: the training images without random transforms)",
    )


def _augmentation(train: DatasetImages, selection: str) -> str:
    if not train.varies:
        return f"none; {selection}"
    known = "the data set's own random transforms, so training images are read anew each epoch"
    if repeatable(train):
        return f"{known}; {selection}"
    return f"{known}; {selection}; they use their own random generator, so runs can't be repeated"


def _check_plain(train: DatasetImages, plain: DatasetImages) -> None:
    """Check that a third data set holds the training set's images without random transforms.

    Raises:
        DataError: if its length or labels differ, or its transforms are random too.
    """
    what = (
        f"data {train.name!r}: the third data set must hold the training images in the same order, "
        "without random transforms"
    )
    if len(plain) != len(train):
        raise DataError(f"{what}; it has {len(plain)} images, the first {len(train)}")
    for position in spread(len(plain), _SAMPLE):
        if train.expected is not None and plain.label(position) != train.expected[position]:
            raise DataError(f"{what}; image {position} has another label")
    if varies(plain):
        raise DataError(f"{what}; its transforms are random too")
