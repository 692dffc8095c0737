"""A script: begins the tiny search again and again, each time stopped at a chosen write.

Usage: dying_start.py FOLDER HOW STEP [HOW STEP ...]

Stops at the first write and at each STEP-th after it. Prints a line for each start: HOW, the write,
how it ended, and how the same search then ended in a new process. The first start that nothing
stopped is the last.

A write is an operation of Python on a file below the folder that changes something, or an SQL
statement. HOW is `kill` (SIGKILL) or `full` (the disk is full from then on).
"""

import errno
import itertools
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dse.errors import DseError
from support.searches import memory_model, search, tiny_study

_CHANGING = {"os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.truncate"}
STUDY = tiny_study(trials=1, finalists=1)


class Stopper:
    """Stops this process at its n-th write."""

    def __init__(self, below: Path, how: str, place: int) -> None:
        self.below, self.how, self.left = str(below), how, place

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event in _CHANGING or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE
        )
        if writes and str(arguments[0]).startswith(self.below):
            self.count(removes=event in ("os.remove", "os.rmdir"))

    def statement(self, _connection: object, _cursor: object, text: str, *_: object) -> None:
        if text.lstrip().upper().startswith(("SELECT", "PRAGMA")):
            return
        try:
            self.count(removes=False)
        except OSError:  # what SQLite makes of it
            full = sqlite3.OperationalError("database or disk is full")
            raise sa.exc.OperationalError(text, {}, full) from None

    def count(self, *, removes: bool) -> None:
        self.left -= 1
        if self.how == "kill" and self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "full" and self.left <= 0 and not removes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def start(out: Path, stopper: Stopper | None) -> str:
    """Run the search in a process of its own; return how it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        if stopper is not None:
            sa.event.listen(sa.Engine, "before_cursor_execute", stopper.statement)
            sys.addaudithook(stopper.hook)
        try:
            search(out, STUDY)
            outcome = "done"
        except DseError as error:
            outcome = f"{type(error).__name__}: {error}"
        except BaseException as error:  # noqa: BLE001
            outcome = f"UNEXPECTED {type(error).__name__}: {error}"
        os.write(writing, outcome.replace("\n", "\\n").encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        outcome = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return outcome if os.waitstatus_to_exitcode(status) == 0 else "killed"


def stop_everywhere(folder: Path, how: str, step: int) -> None:
    """Stop starts at every `step`-th write, until one ends undisturbed."""
    for place in itertools.count(1, step):
        out = folder / how / str(place) / "run"
        out.parent.mkdir(parents=True)
        ended = start(out, Stopper(out, how, place))
        again = "" if ended == "done" else start(out, None)
        sys.stdout.write(f"{how}\t{place}\t{ended}\t{again}\n")
        sys.stdout.flush()
        if ended == "done":
            return


def main(folder: Path, *ways: str) -> None:
    memory_model()  # compiled once, for all the processes forked below
    for how, step in zip(ways[::2], ways[1::2], strict=True):
        stop_everywhere(folder, how, int(step))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
