"""What a library of networks offers, and which libraries there are."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from dse.errors import NetworkError
from dse.inputs import InputSpec
from dse.names import LIBRARIES, Outputs, library_of

NO_WEIGHTS = "none"
DEFAULT_WEIGHTS = "default"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A network of a library, and what it is built with.

    Attributes:
        title: the whole name, for messages.
        name: the name within the library.
        classes: number of outputs.
        outputs: whether these are a vector for a sample, or maps.
        weights: "none", "default", or another name of the library's weights.
        options: options of the study.
        folder: folder that relative paths start at; None for the working directory.
        inputs: shape and type of one sample, if it is known.
        on_message: called with one line on what the library's weights leave new.
    """

    title: str
    name: str
    classes: int
    outputs: Outputs = "vector"
    weights: str = NO_WEIGHTS
    options: dict[str, Any]
    folder: Path | None = None
    inputs: InputSpec | None = None
    on_message: Callable[[str], None] = lambda _line: None

    def state_classes(self, trained: int) -> None:
        """Report a new output layer, where the weights were trained for other classes."""
        if trained != self.classes:
            self.on_message(
                f"weights {self.weights!r} of {self.title} have {trained} outputs: the output "
                f"layer for {self.classes} is new"
            )


@dataclass(frozen=True, kw_only=True)
class Library:
    """A library of networks.

    Attributes:
        build: builds a network; raises `NetworkError`.
        check_weights: checks the name of weights without a download, and yields a line on what a
            run will do to get them; raises `NetworkError`.
        reserved: options that a study sets by other keys.
    """

    build: Callable[[Wanted], nn.Module]
    check_weights: Callable[[Wanted], Iterator[str]]
    reserved: tuple[str, ...]


def find_library(name: str) -> Library | None:
    """Return the library that a network is named of; None for a user's own factory.

    The module of the library is imported here, because some take seconds to import.
    """
    word = library_of(name)
    if word is None:
        return None
    module = importlib.import_module(f"dse.networks.{_MODULES[word]}")
    found: Library = module.LIBRARY
    return found


_MODULES = {
    "torchvision": "torchvision_library",
    "timm": "timm_library",
    "hf": "transformers_library",
    "lite": "lite_library",
    "export": "exported_library",
}


def imported(module: str, *, title: str) -> ModuleType:
    """Import an optional library.

    Args:
        module: module to import.
        title: name of the network that needs it.

    Raises:
        NetworkError: If it isn't installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        extra = LIBRARIES[title.partition(":")[0]]
        raise NetworkError(
            f"network {title!r} needs the package {module.partition('.')[0]} ({error}): "
            f"pip install 'dse[{extra}]'"
        ) from error


@contextmanager
def downloading(wanted: Wanted, *, place: str) -> Iterator[None]:
    """Turn a failed download into one line.

    Args:
        wanted: the network.
        place: where the files come from, and what to do without a network.

    Raises:
        NetworkError: If an error of the file system or of a connection caused it.
    """
    try:
        yield
    except NetworkError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError):  # base of urllib's, socket's and the hub's errors
            raise
        reason = " ".join(str(cause).split()).partition(". ")[0]
        raise NetworkError(
            f"weights {wanted.weights!r} of {wanted.title} can't be downloaded ({reason}); {place}"
        ) from cause
