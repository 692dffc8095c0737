"""Writes files of a run folder as a whole, so that a crash never leaves half of one."""

import os
from pathlib import Path

from dse.errors import RunError


def write_whole(path: Path, text: str) -> None:
    """Write a text file beside its place, then move it there.

    Raises:
        RunError: if it can't be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # after a power failure, a renamed file could be empty
        partial.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> RunError:
    """Return the error for a file of the run folder that can't be written."""
    return RunError(
        f"{path} can't be written: {error.strerror}; free disk space or fix its permissions, and "
        "run again"
    )
