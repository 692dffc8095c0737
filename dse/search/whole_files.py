"""Writes files of a run folder as a whole, so that a crash never leaves half of one."""

from pathlib import Path

from dse.atomic import replaced_whole
from dse.errors import RunError


def write_whole(path: Path, text: str) -> None:
    """Write a text file; readers see the old content or the new.

    Raises:
        RunError: if it can't be written.
    """
    try:
        with replaced_whole(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> RunError:
    """Return the error for a file of the run folder that can't be written."""
    return RunError(
        f"{path} can't be written: {error.strerror}; free disk space or fix its permissions, and "
        "run again"
    )
