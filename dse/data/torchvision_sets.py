"""Data sets of torchvision, by the names of their classes."""

import contextlib
import http.client
import inspect
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torchvision
from torch.utils.data import Dataset

from dse.caches import cache_folder
from dse.data.datasets import dataset_source
from dse.data.reading import Reading
from dse.data.sources import Source
from dse.errors import DataError
from dse.names import nearest

_TRAIN_SPLITS = ("train", "trainval")
_VALIDATION_SPLITS = ("val", "valid", "validation", "test")
_GIVEN = ("root", "split", "train")  # arguments that this module fills in
_NETWORK_TIMEOUT_SECONDS = 30.0

OnDisk = Callable[..., Dataset[Any]]  # a class of torchvision.datasets, called with its root


# Number of labels, which is known without downloading the data.
CLASSES = {
    "CIFAR10": 10,
    "CIFAR100": 100,
    "DTD": 47,
    "FashionMNIST": 10,
    "Flowers102": 102,
    "Food101": 101,
    "MNIST": 10,
    "OxfordIIITPet": 37,
    "STL10": 10,
    "SVHN": 10,
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
        near = nearest(name, known, cutoff=0.5)
        hint = f"did you mean {near!r}?" if near else "see torchvision.datasets for the names"
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


def torchvision_source(name: str, root: Path, *, reading: Reading, download: bool) -> Source | None:
    """Open a data set of torchvision.

    Args:
        name: name of its class, such as "Flowers102".
        root: folder that holds it, or that it is downloaded to.
        reading: shape of the images after reading.
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
    return dataset_source(train, validation, name=f"torchvision:{name}", reading=reading)


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
        except Exception as error:  # noqa: BLE001  # torchvision may raise anything if files are missing
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
            f"{place} created there ({words}): fix that, or put its files there by hand, or name a "
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
