"""torch data sets of (image, label): torchvision's by name, and those of a user's factory."""

import contextlib
import http.client
import importlib
import inspect
import os
import socket
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torchvision
from torch.utils.data import Dataset

from dse.data.images import DatasetImages
from dse.data.sources import Pool, Source
from dse.data.split import Positions
from dse.errors import DataError

_TRAIN_SPLITS = ("train", "trainval")
_VALIDATION_SPLITS = ("val", "valid", "validation", "test")
_GIVEN = ("root", "split", "train")  # arguments that are filled in here
_NETWORK_TIMEOUT_SECONDS = 30.0
_UNREADABLE = (
    OSError,  # urllib's errors are of this kind
    RuntimeError,
    ValueError,
    ImportError,
    http.client.HTTPException,
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
)


OnDisk = Callable[..., Dataset[Any]]  # a class of torchvision.datasets, called with its root


@dataclass(frozen=True)
class Extent:
    """What is known of a data set without having it."""

    classes: int
    training_images: int
    validation_images: int


# The splits taken above, of data sets that are often used.
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
    """Say where downloaded data sets are kept: $DSE_CACHE/data, or ~/.cache/dse/data."""
    cache = os.environ.get("DSE_CACHE")
    return (Path(cache) if cache else Path.home() / ".cache" / "dse") / "data"


def torchvision_class(name: str) -> OnDisk:
    """Look a data set of torchvision up by its class name.

    Raises:
        DataError: There is none of that name, or it isn't one of labelled images on disk.
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
        name: Its class, as in "Flowers102".
        root: Where it lies, or is to be put.
        image_size: Side of the images once read, in pixels.
        download: Fetch it where it is missing.

    Returns:
        Its training part and, where it has one, its validation or test part; None where it is
        missing and not to be downloaded.

    Raises:
        DataError: It can't be opened or downloaded; the line says what to download, and where to.
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
    """Open the first choice of arguments that the class knows."""
    for arguments in choices:
        try:
            return _constructed(found, root, arguments)
        except ValueError:  # torchvision's word for a split it doesn't know
            continue
        except (RuntimeError, OSError) as error:  # its words for missing files
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
        except _UNREADABLE as error:
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
    """Construct a data set; nothing it prints reaches stdout, and no connection hangs."""
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
    """Call a user's factory for its two data sets.

    Args:
        spec: "package.module:factory", a function without arguments that returns the data sets to
            train on and to validate with, both of (image, label). Names of the labels are read
            from the first one's `classes`, where it has them.
        search_path: Folder in which the module is looked for first.
        image_size: Side of the images once read, in pixels.

    Raises:
        DataError: The factory can't be imported, fails or returns something else.
    """
    factory = load_factory(spec, search_path)
    try:
        made = factory()
    except Exception as error:  # whatever a user's code may raise
        raise DataError(f"data {spec!r} failed: {type(error).__name__}: {error}") from error
    pair = isinstance(made, tuple | list) and len(made) == 2  # noqa: PLR2004 -- train, validation
    if not pair or not all(hasattr(one, "__getitem__") and hasattr(one, "__len__") for one in made):
        raise DataError(
            f"data {spec!r} returned a {type(made).__name__}: return (train, validation), "
            "two data sets with a length that are indexed by position"
        )
    train, validation = made
    return dataset_source(train, validation, name=spec, image_size=image_size)


def load_factory(spec: str, search_path: Path | None) -> Any:
    """Import what "package.module:factory" names.

    Raises:
        DataError: There is no such module, it fails on import, or has no such function.
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
    train: Dataset[Any], validation: Dataset[Any] | None, *, name: str, image_size: int
) -> Source:
    """Bring torch data sets of (image, label) into the common form.

    Raises:
        DataError: A label is no whole number, or beyond the names that the data set gives.
    """
    pools = [
        Pool(images=images, targets=_targets(images))
        for images in (
            DatasetImages(one, name, image_size) for one in (train, validation) if one is not None
        )
    ]
    most = max((int(pool.targets.max(initial=-1)) for pool in pools), default=-1)
    labels = _label_names(train, count=most + 1)
    if most >= len(labels) or min(int(pool.targets.min(initial=0)) for pool in pools) < 0:
        raise DataError(
            f"data {name!r}: a label is outside 0 to {len(labels) - 1}, for which there are names"
        )
    return Source(labels=labels, train=pools[0], validation=pools[1] if pools[1:] else None)


def _label_names(dataset: Dataset[Any], *, count: int) -> tuple[str, ...]:
    """Read the names of labels, or number them; equal names get their number."""
    given = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    names = [one if isinstance(one, str) else ", ".join(map(str, one)) for one in given or ()]
    if not names:
        return tuple(str(number) for number in range(count))
    return tuple(
        f"{one} ({number})" if names.count(one) > 1 else one for number, one in enumerate(names)
    )


def _targets(images: DatasetImages) -> Positions:
    """Read all labels: from the attribute that holds them, else image by image."""
    for attribute in ("targets", "_labels", "labels", "y", "_samples", "samples"):
        held = getattr(images.dataset, attribute, None)
        if isinstance(held, list) and held and isinstance(held[0], tuple):
            held = [one[-1] for one in held]
        if held is None or not hasattr(held, "__len__") or len(held) != len(images):
            continue
        array = np.asarray(held)
        if array.ndim == 1 and np.issubdtype(array.dtype, np.integer):
            return array.astype(np.int64)
    read = [images.item(position)[1] for position in range(len(images))]
    array = np.asarray([np.asarray(one) for one in read] if read else np.empty(0, np.int64))
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise DataError(
            f"data {images.name!r}: its labels are not whole numbers (image 0 has {read[0]!r}): "
            "one label for each image is needed"
        )
    return array.astype(np.int64)
