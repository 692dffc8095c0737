"""Repairs a journal file whose last lines were torn, as by a full disk or a power failure."""

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileSymlinkLock
from optuna.storages.journal._storage import JournalOperation

from dse.errors import RunError

_WRITING_SECONDS = 0.5  # more than it takes to write a line


@dataclass(frozen=True)
class Repair:
    """What was repaired.

    Attributes:
        lines: number of whole lines that the journal keeps.
        dropped: number of lines that could not be read, and were taken out.
        backup: copy of the journal as it was; None if nothing was wrong.
    """

    lines: int
    dropped: int
    backup: Path | None


def repair_journal(path: Path) -> Repair:
    """Take out the lines of a journal that can't be read, after copying it, under its lock.

    Optuna reads a journal line by line and stops at the first that is no JSON object, so one torn
    line makes all later ones unreadable. Each line is one operation that was never acknowledged
    if the line is torn, so nothing that a run relies on is lost.

    Args:
        path: the journal file.

    Raises:
        RunError: if it doesn't exist, is not a journal, or can't be written.
    """
    if not path.is_file():
        raise RunError(f"{path}: there is no such journal file; see that the name is right")
    lock = JournalFileSymlinkLock(str(path))
    try:
        lock.acquire()
        try:
            return _repair(path)
        finally:
            lock.release()
    except OSError as error:
        raise RunError(f"{path} can't be repaired: {error.strerror or error}") from error


def _repair(path: Path) -> Repair:
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n") and _is_operation(line)]
    if len(whole) == len(lines):
        return Repair(lines=len(lines), dropped=0, backup=None)
    if not whole:
        raise RunError(f"{path} holds no line of an Optuna journal: it is another file")
    backup = _free_name(path)
    shutil.copy2(path, backup)
    # In place, because other processes may have the file open; the backup is there already.
    with path.open("r+b") as file:
        file.write(b"".join(whole))
        file.truncate()
    return Repair(lines=len(whole), dropped=len(lines) - len(whole), backup=backup)


def has_later_operations(path: Path) -> bool:
    """Return whether a journal holds operations that the installed Optuna doesn't know."""
    with path.open("rb") as file:
        codes = [found["op_code"] for line in file if (found := _operation(line)) is not None]
    return any(isinstance(code, int) and code > max(JournalOperation) for code in codes)


def has_torn_end(path: Path) -> bool:
    """Return whether a journal's last line was never finished, so that what follows is unreadable.

    A line that another process is just writing is finished at the second look.
    """
    sizes = []
    for pause in (_WRITING_SECONDS, 0.0):
        with path.open("rb") as file:
            sizes.append(file.seek(0, os.SEEK_END))
            if not sizes[-1]:
                return False
            file.seek(-1, os.SEEK_END)
            if file.read(1) == b"\n":
                return False
        time.sleep(pause)
    return len(set(sizes)) == 1


def _is_operation(line: bytes) -> bool:
    return _operation(line) is not None


def _operation(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "op_code" in found else None


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.backup-{number}") for number in range(1, 1000))
    found = next((name for name in names if not name.exists()), None)
    if found is None:
        raise RunError(f"{path} has too many backups beside it: remove some")
    return found
