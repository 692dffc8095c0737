"""torch data sets of (image, label): torchvision's by name, or from a user's factory."""

import contextlib
import http.client
import importlib
import inspect
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torchvision
from torch.utils.data import Dataset

from dse.caches import cache_folder
from dse.data.items import DatasetImages, random_state_kept, spread
from dse.data.labels import combine, read_labels
from dse.data.pixels import Extremes, Scale, decide
from dse.data.randomness import plain_twin, repeatable, varies
from dse.data.sources import Pool, Source
from dse.errors import DataError

_TRAIN_SPLITS = ("train", "trainval")
_VALIDATION_SPLITS = ("val", "valid", "validation", "test")
_GIVEN = ("root", "split", "train")  # arguments that this module fills in
_NETWORK_TIMEOUT_SECONDS = 30.0
_SAMPLE = 32  # items that are read to find how values are stored

OnDisk = Callable[..., Dataset[Any]]  # a class of torchvision.datasets, called with its root


@dataclass(frozen=True)
class Extent:
    """Sizes of a data set that are known without downloading it."""

    classes: int
    training_images: int
    validation_images: int


# Sizes of common data sets, for the splits listed above.
EXTENTS = {
    "CIFAR10": Extent(10, 50_000, 10_000),
    "CIFAR100": Extent(100, 50_000, 10_000),
    "DTD": Extent(47, 1_880, 1_880),
    "FashionMNIST": Extent(10, 60_000, 10_000),
    "Flowers102": Extent(102, 1_020, 1_020),
    "Food101": Extent(101, 75_750, 25_250),
    "MNIST": Extent(10, 60_000, 10_000),
    "OxfordIIITPet": Extent(37, 3_680, 3_669),
    "STL10": Extent(10, 5_000, 8_000),
    "SVHN": Extent(10, 73_257, 26_032),
}


def default_root() -> Path:
    """Return the folder of downloaded data sets: $DSE_CACHE/data, or ~/.cache/dse/data."""
    return cache_folder() / "data"


def torchvision_class(name: str) -> OnDisk:
    """Return a data set class of torchvision by its name.

    Raises:
        DataError: if there is none of that name, or it doesn't hold labelled images on disk.
    """
    known = sorted({*torchvision.datasets.__all__} - {"VisionDataset"})  # their abstract base
    if name not in known:
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "see torchvision.datasets for the names"
        raise DataError(f"data.name: torchvision has no data set {name!r}: {hint}")
    found: OnDisk = getattr(torchvision.datasets, name)
    parameters = list(inspect.signature(found).parameters.values())
    extra = [
        one.name
        for one in parameters
        if one.default is one.empty and one.kind is not one.VAR_KEYWORD and one.name not in _GIVEN
    ]
    if extra or "root" not in {one.name for one in parameters}:
        reason = f"needs {', '.join(extra)}" if extra else "is not read from a folder"
        raise DataError(
            f"data.name: torchvision's {name} {reason}: only labelled images of one root can be "
            'named; write a factory of your own ("package.module:factory") for it'
        )
    return found


def torchvision_source(name: str, root: Path, *, image_size: int, download: bool) -> Source | None:
    """Open a data set of torchvision.

    Args:
        name: name of its class, such as "Flowers102".
        root: folder that holds it, or that it is downloaded to.
        image_size: side of the images after reading, in pixels.
        download: whether to download it if it is missing.

    Returns:
        Its training part and its validation or test part, if it has one; None if it is missing and
        `download` is False.

    Raises:
        DataError: if it can't be opened or downloaded; the message says what to download and where
            to put it.
    """
    found = torchvision_class(name)
    parameters = inspect.signature(found).parameters
    if "split" in parameters:
        train = _opened(found, root, [{"split": one} for one in _TRAIN_SPLITS], download=download)
        choices = [{"split": one} for one in _VALIDATION_SPLITS]
        validation = _opened(found, root, choices, download=download)
    elif "train" in parameters:
        train = _opened(found, root, [{"train": True}], download=download)
        validation = _opened(found, root, [{"train": False}], download=download)
    else:
        train, validation = _opened(found, root, [{}], download=download), None
    if train is None or (validation is None and {"split", "train"} & set(parameters)):
        return None
    return dataset_source(train, validation, name=f"torchvision:{name}", image_size=image_size)


def _name(found: OnDisk) -> str:
    return str(getattr(found, "__name__", found))


def _opened(
    found: OnDisk, root: Path, choices: list[dict[str, Any]], *, download: bool
) -> Dataset[Any] | None:
    """Open the data set with the first choice of arguments that its class accepts."""
    for arguments in choices:
        try:
            return _constructed(found, root, arguments)
        except ValueError:  # torchvision raises it for an unknown split
            continue
        except Exception as error:  # noqa: BLE001  # whatever torchvision does of missing files
            if not download:
                return None
            return _downloaded(found, root, arguments, missing=error)
    tried = ", ".join(str(value) for one in choices for value in one.values())
    raise DataError(
        f"data.name: torchvision's {_name(found)} knows none of the splits {tried}: "
        'write a factory of your own ("package.module:factory") for it'
    )


def _downloaded(
    found: OnDisk, root: Path, arguments: dict[str, Any], *, missing: Exception
) -> Dataset[Any]:
    reason: Exception = missing
    if "download" in inspect.signature(found).parameters:
        try:
            return _constructed(found, root, {**arguments, "download": True})
        except Exception as error:  # noqa: BLE001  # of urllib, archives, torchvision
            reason = error
    words = " ".join(str(reason).split()) or type(reason).__name__
    place = f"data {f'torchvision:{_name(found)}'!r} is not in {root} and can't be"
    if not isinstance(reason, OSError | http.client.HTTPException) and "Error down" not in words:
        raise DataError(
            f"{place} made there ({words}): mend that, or put its files there by hand, or name a "
            "folder that has them with data.root"
        ) from reason
    call = ", ".join([repr(str(root)), *(f"{key}={value!r}" for key, value in arguments.items())])
    raise DataError(
        f"{place} downloaded ({words}): where there is a network, run "
        f"torchvision.datasets.{_name(found)}({call}, download=True) in Python and copy the folder "
        "here, or name one that has it with data.root"
    ) from reason


def _constructed(found: OnDisk, root: Path, arguments: dict[str, Any]) -> Dataset[Any]:
    """Construct a data set with its output sent to stderr and a time limit on connections."""
    with contextlib.redirect_stdout(sys.stderr), _network_timeout():
        return found(str(root), **arguments)


@contextlib.contextmanager
def _network_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_NETWORK_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def factory_source(spec: str, search_path: Path | None, *, image_size: int) -> Source:
    """Call a user's factory for its data sets.

    Args:
        spec: "package.module:factory", a function without arguments that returns two data sets of
            (image, label), for training and validation, and optionally a third: the training images
            in the same order without random transforms, used for selection. Names of labels are
            read from the first one's `classes`, if it has them.
        search_path: folder in which the module is searched first.
        image_size: side of the images after reading, in pixels.

    Raises:
        DataError: if the factory can't be imported, fails, or returns something else.
    """
    factory = load_factory(spec, search_path)
    try:
        made = factory()
    except Exception as error:  # whatever a user's code may raise
        raise DataError(f"data {spec!r} failed: {type(error).__name__}: {error}") from error
    several = isinstance(made, tuple | list) and len(made) in (2, 3)
    if not several or not all(_is_indexed(one) for one in made):
        raise DataError(
            f"data {spec!r} returned a {type(made).__name__}: return (train, validation), "
            "two data sets with a length that are indexed by position"
        )
    train, validation, *rest = made
    return dataset_source(
        train, validation, plain=rest[0] if rest else None, name=spec, image_size=image_size
    )


def _is_indexed(dataset: object) -> bool:
    """Return whether a data set has a length and is indexed by position."""
    try:
        return hasattr(dataset, "__getitem__") and len(dataset) >= 0  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001  # a data set's own code
        return False


def load_factory(spec: str, search_path: Path | None) -> Any:
    """Import the object that "package.module:factory" names.

    Raises:
        DataError: if the module doesn't exist, fails on import, or has no such function.
    """
    module_name, _, attribute = spec.partition(":")
    entry = [] if search_path is None else [str(search_path)]
    sys.path[:0] = entry
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a user's module may raise
        raise DataError(
            f"data.name: {module_name!r} can't be imported: {type(error).__name__}: {error}"
        ) from error
    finally:
        for path in entry:
            sys.path.remove(path)
    if not callable(getattr(module, attribute, None)):
        near = get_close_matches(attribute, dir(module), n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise DataError(f"data.name: {module_name!r} has no function {attribute!r}{hint}")
    return getattr(module, attribute)


def dataset_source(
    train: Dataset[Any],
    validation: Dataset[Any] | None,
    *,
    plain: Dataset[Any] | None = None,
    name: str,
    image_size: int,
) -> Source:
    """Convert torch data sets of (image, label) to a `Source`.

    Args:
        train: training data; the selection part is split off it.
        validation: validation data, if there is any.
        plain: the training images without random transforms.
        name: name of the data in messages.
        image_size: side of the images after reading, in pixels.

    Raises:
        DataError: if an item can't be read, its label is unsupported or has no name, or the data
            sets don't match.
    """
    pools = [DatasetImages(one, name, image_size) for one in (train, validation) if one is not None]
    for part, images in zip(("training", "validation"), pools, strict=False):
        if not len(images):
            raise DataError(f"data {name!r}: the {part} set is empty")
    labelled = [read_labels(images) for images in pools]
    labels, targets, validation_targets = combine(
        labelled[0], labelled[1] if labelled[1:] else None, name=name
    )
    scale = _scale(pools)
    checked = [
        replace(images, expected=known.values, scale=scale, varies=varies(images))
        for images, known in zip(pools, labelled, strict=True)
    ]
    twin, augmentation = _unvaried(checked[0], plain, validation)
    notes = [note for known in labelled for note in known.notes]
    if checked[1:] and checked[1].varies:
        notes.append(
            "the validation set's own transforms are random: each image is read in one variation"
        )
    return Source(
        labels=labels,
        train=Pool(images=checked[0], targets=targets, plain=twin),
        validation=None
        if validation_targets is None
        else Pool(images=checked[1], targets=validation_targets),
        notes=tuple(dict.fromkeys([*notes, *scale.notes])),
        augmentation=augmentation,
        pixel_values=scale.text,
    )


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


def _is_unit(one: Extremes) -> bool:
    return one.kind == "floats" and one.low >= 0 and one.high <= 1


def _unvaried(
    train: DatasetImages, plain: Dataset[Any] | None, validation: Dataset[Any] | None
) -> tuple[DatasetImages | None, str]:
    """Return the training images without random transforms, and a text about the augmentation."""
    if plain is not None:
        given = replace(train, dataset=plain, varies=False)
        _check_plain(train, given)
        how = "the third data set's"
    elif not train.varies:
        return None, ""
    elif (twin := plain_twin(train.dataset, validation)) is not None and not varies(
        given := replace(train, dataset=twin, varies=False)
    ):
        _check_plain(train, given)
        how = "the training set's with the validation set's transform"
    else:
        return None, _augmentation(
            train,
            "to select by, each is read in one variation (return a third data set from the "
            "factory, the training images without random transforms, to select by those)",
        )
    return given, _augmentation(train, f"images to select by are {how}")


def _augmentation(train: DatasetImages, selection: str) -> str:
    if not train.varies:
        return f"none; {selection}"
    again = (
        ""
        if repeatable(train)
        else ("; they draw from a random generator of their own, so that runs aren't repeatable")
    )
    return (
        "the data set's own random transforms, so training images are read anew each epoch; "
        f"{selection}{again}"
    )


def _check_plain(train: DatasetImages, plain: DatasetImages) -> None:
    """Check that a plain data set holds the training set's images.

    Raises:
        DataError: if its length or labels differ, or its transforms are random too.
    """
    what = f"data {train.name!r}: the third data set must be the training images again, in order"
    if len(plain) != len(train):
        raise DataError(
            f"{what}, without random transforms; it has {len(plain)} images, the first {len(train)}"
        )
    for position in spread(len(plain), _SAMPLE):
        if train.expected is not None and plain.label(position) != train.expected[position]:
            raise DataError(f"{what}; image {position} has another label")
    if varies(plain):
        raise DataError(f"{what}; its transforms are random too")
