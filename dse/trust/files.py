"""Opens files from untrusted sources: regular files of limited size, not links."""

import os
import stat
from io import BufferedReader
from pathlib import Path

from dse.digests import file_digest


class UnfitFileError(OSError):
    """Raised for a link, for anything but a regular file, or for a file that is too large."""

    def __init__(self, reason: str) -> None:
        super().__init__(0, reason)


def open_regular(path: Path, *, most_bytes: int) -> BufferedReader:
    """Open a file for reading if it is a regular file of limited size and not a link.

    Args:
        path: the file.
        most_bytes: maximum size in bytes.

    Raises:
        OSError: if it can't be opened.
        UnfitFileError: if it is a link, pipe, device or folder, or too large.
    """
    if path.is_symlink():
        raise UnfitFileError("it is a link, and must be a file of its own")
    # O_NONBLOCK, because opening a pipe would wait for its other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        file.close()
        raise UnfitFileError("it is not a regular file")
    if found.st_size > most_bytes:
        file.close()
        raise UnfitFileError(f"it has {found.st_size:,} bytes, more than the {most_bytes:,} of one")
    return file


def read_regular(path: Path, *, most_bytes: int) -> bytes:
    """Return the content of a file, opened with `open_regular`.

    Raises:
        OSError: see `open_regular`.
    """
    with open_regular(path, most_bytes=most_bytes) as file:
        return file.read(most_bytes)


def regular_digest(path: Path, *, most_bytes: int) -> str:
    """Return the SHA-256 of a file in hexadecimal, opened with `open_regular`.

    Raises:
        OSError: see `open_regular`.
    """
    with open_regular(path, most_bytes=most_bytes) as file:
        return file_digest(file)
