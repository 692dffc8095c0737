"""Files that appear complete or not at all, whatever other processes do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replaced_whole(path: Path) -> Iterator[Path]:
    """Replace a file atomically: readers see the old content or the new, also if writing fails.

    Yields:
        A path beside it to write to, distinct for each process. It is flushed to the disk and
        renamed at the end, and removed if an exception is raised.
    """
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        with partial.open("r+b") as file:
            os.fsync(file.fileno())  # or a renamed file could be empty after a power failure
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def move_if_free(made: Path, path: Path) -> None:
    """Move a file to a path unless another process created that path first.

    Args:
        made: The complete file, on the same file system. It may remain; the caller removes it.
        path: Where it goes.

    Raises:
        OSError: If it can't be moved.
    """
    try:
        os.link(made, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not path.exists():
            made.rename(path)
