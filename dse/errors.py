"""Every error that a user can meet.

DseError                 exit status 2; its message is one line: the value, the place and the fix
├── ConfigError          a study or search-space file, a flag, a size or a duration
├── CandidateError       a candidate that doesn't fit its network
├── NetworkError         a network that can't be found, built or loaded
│   └── PruningError     a network, or a module of it, that can't be pruned
├── DataError            data that can't be found, read or split
│   └── UnreadableImageError  image files that can't be read
├── MemoryModelError     a network whose training step can't be traced or modelled
├── TrainingError        a fine-tuning that diverged or can't start
├── RunError             a run folder or storage that can't be used
├── ExportError          a bundle that can't be written or read
└── InfeasibleError      exit status 1: nothing fits the budget
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from dse.plain_text import one_line


class DseError(Exception):
    """Base of all errors whose message is meant for the user; the command line prints it alone."""

    exit_status = 2

    def __str__(self) -> str:
        """Return the message as one line, whatever the names and values in it hold."""
        return one_line(super().__str__())


class ConfigError(DseError):
    """A study or search-space file, a flag, a size or a duration is wrong."""


class CandidateError(DseError):
    """A candidate can't be read, or doesn't fit the network it is meant for."""


class NetworkError(DseError):
    """A network can't be found, built or loaded."""


class PruningError(NetworkError):
    """A network, or a named module of it, can't be pruned."""


class DataError(DseError):
    """Data can't be found, read or split."""


class UnreadableImageError(DataError):
    """Image files can't be read.

    Attributes:
        paths: The files.
        reason: Why the first can't.
    """

    def __init__(self, path: Path, reason: str, *, others: Sequence[Path] = ()) -> None:
        self.paths, self.reason = (path, *others), reason
        more = f", nor can {len(others):,} more ({', '.join(map(str, others[:3]))})" * bool(others)
        super().__init__(
            f"{path}: can't be read as an image ({reason}){more}: repair or take out each of them"
            if others
            else f"{path}: can't be read as an image ({reason}): repair it or take it out"
        )


class MemoryModelError(DseError):
    """A network's training step can't be traced or expressed as a memory model."""


class TrainingError(DseError):
    """A fine-tuning can't start, its loss stopped being finite, or it broke off.

    Attributes:
        images_trained: Images of the steps that were taken before.
        kind: Why: "training" where it can't start or diverged, "memory" where memory ran out,
            "error" where the code of a network or data set raised an exception.
    """

    images_trained: int = 0
    kind: Literal["training", "memory", "error"] = "training"

    @classmethod
    @contextmanager
    def counting(cls, images: Callable[[], int]) -> Iterator[None]:
        """Say in an error that is raised inside how many images had been trained by then."""
        try:
            yield
        except cls as error:
            error.images_trained = images()
            raise


class RunError(DseError):
    """A run folder or its storage can't be used."""


class ExportError(DseError):
    """A bundle can't be written or read."""


class InfeasibleError(DseError):
    """No candidate fits the budget."""

    exit_status = 1
