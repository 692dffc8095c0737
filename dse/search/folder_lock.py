"""The lock of a run folder, which only one process at a time may hold."""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dse.digests import json_digest
from dse.errors import RunError
from dse.search.whole_files import unwritable


def machine_digest() -> str:
    """Return a digest that identifies this machine, or this container."""
    machine = Path("/etc/machine-id")
    named = machine.read_text(encoding="ascii").strip() if machine.is_file() else ""
    return json_digest([platform.node(), named])


def place_of(path: Path) -> str:
    """Return a digest that identifies a lock file on its machine; a copy of the file differs.

    Args:
        path: the lock file, which this process holds.
    """
    found = path.stat()
    return json_digest([machine_digest(), found.st_dev, found.st_ino])


@dataclass(frozen=True)
class FolderLock:
    """A lock file that this process holds.

    Attributes:
        path: where it was.
        descriptor: the open file.
    """

    path: Path
    descriptor: int

    def check(self) -> None:
        """Check that the folder still exists; it may have been moved.

        Raises:
            RunError: if it was deleted, so that results would be lost.
        """
        if not os.fstat(self.descriptor).st_nlink:
            raise RunError(
                f"{self.path.parent} was deleted while the run was working in it; restore it, or "
                "run the study again"
            )


@contextmanager
def locked(path: Path) -> Iterator[FolderLock]:
    """Hold a lock file, and write this process's id into it.

    Args:
        path: the lock file, in the folder that it locks; created if it doesn't exist.

    Raises:
        RunError: if another process holds the lock (the message gives its id), or the file can't
            be written.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise RunError(
            f"{path} can't be written: {error.strerror}; give --out another folder"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = path.read_text(encoding="utf-8").strip() or "unknown"
            raise RunError(
                f"{path.parent} is in use by process {holder}; wait for it to end, "
                "or give --out another folder"
            ) from error
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        except OSError as error:
            raise unwritable(path, error) from error
        yield FolderLock(path, descriptor)
    finally:
        os.close(descriptor)
