"""The folder of files that can be made again, and how a file is replaced as a whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CACHE_VARIABLE = "DSE_CACHE"


def cache_folder() -> Path:
    """Return the folder for files that can be made again: `$DSE_CACHE`, or `~/.cache/dse`."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "dse"


@contextmanager
def replaced_whole(path: Path) -> Iterator[Path]:
    """Replace a file atomically: readers see the old content or the new, also if writing fails.

    Yields:
        A path beside it to write to, distinct for each process. It is renamed at the end, and
        removed if an exception is raised.
    """
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
