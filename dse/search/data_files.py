"""The image files that a run began with, and those that turned out to be unreadable.

A run is refused if its data changed, since its results would not be comparable. One change is
allowed because error messages ask for it: removing an image that can't be read.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dse.errors import RunError, UnreadableImageError
from dse.search.whole_files import write_whole

DATA_FILES_FILE = "data_files.json"


def write_files(folder: Path, files: Mapping[str, int] | None) -> None:
    """Store the size of each image file of a run, by part, label and name.

    Raises:
        RunError: if the run folder can't be written.
    """
    if files is None:
        return
    known = _read(folder)
    _write(folder, {"files": dict(files), "unreadable": known.get("unreadable", [])})


def taken_out(folder: Path, files: Mapping[str, int] | None) -> tuple[str, ...]:
    """Return the unreadable images that were removed since the run began.

    Args:
        folder: the run folder.
        files: size in bytes of each image file as it is now, by part, label and name.

    Returns:
        Names of the removed images; empty if nothing changed.

    Raises:
        RunError: if anything else changed as well; the message names the first difference.
    """
    known = _read(folder)
    before: dict[str, int] = known.get("files", {})
    if not before or files is None or before == files:
        return ()
    unreadable = known.get("unreadable", [])
    gone = tuple(key for key in before if key not in files)
    lost = [key for key in gone if not _is_among(key, unreadable)]
    added = [key for key in files if key not in before]
    changed = [key for key, size in files.items() if before.get(key, size) != size]
    for keys, what in ((lost, "is gone"), (added, "is new"), (changed, "has another size")):
        if keys:
            more = f" (and so {len(keys) - 1:,} more)" if keys[1:] else ""
            raise RunError(
                f"{folder} was run with other data files (by name and size): {keys[0]} {what}"
                f"{more}; results would not compare: restore the data, or run the study into "
                "another folder with --out"
            )
    return gone


@contextmanager
def unreadable_noted(folder: Path) -> Iterator[None]:
    """Record images that can't be read while this context is active, so they may be removed.

    Args:
        folder: the run folder; nothing is recorded if the run hasn't begun.
    """
    try:
        yield
    except UnreadableImageError as error:
        known = _read(folder)
        if known.get("files"):
            paths = {*known.get("unreadable", []), *map(_absolute, error.paths)}
            with suppress(RunError):  # the user must see the error about the image, not this one
                _write(folder, {**known, "unreadable": sorted(paths)})
        raise


def _absolute(path: Path) -> str:
    return path.absolute().as_posix()


def _is_among(key: str, paths: list[str]) -> bool:
    """Return whether a key of part, label and name belongs to one of the paths."""
    _, label, name = key.split("/", 2)
    return any(
        path.endswith(f"/{name}") and f"/{label}/" in path.removesuffix(name) for path in paths
    )


def _read(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / DATA_FILES_FILE).read_bytes())
    except (OSError, ValueError):  # from an earlier release, or damaged: nothing to compare with
        return {}
    return content if isinstance(content, dict) else {}


def _write(folder: Path, content: dict[str, Any]) -> None:
    write_whole(folder / DATA_FILES_FILE, f"{json.dumps(content, indent=0)}\n")
