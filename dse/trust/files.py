"""Files that strangers may have made: regular, in their own folder, and of limited size."""

import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path


class UnfitFileError(OSError):
    """A file that is a link, no regular file, or too large; `strerror` says which."""

    def __init__(self, reason: str) -> None:
        super().__init__(0, reason)


def open_regular(path: Path, *, most_bytes: int) -> BufferedReader:
    """Open a file for reading if it is a regular one of limited size, and no link to another place.

    Args:
        path: of the file.
        most_bytes: that it may have.

    Raises:
        OSError: it can't be opened.
        UnfitFileError: it is a link, a pipe, a device or a folder, or too large.
    """
    if path.is_symlink():
        raise UnfitFileError("it is a link, and must be a file of its own")
    # Opening a pipe would wait for its other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        file.close()
        raise UnfitFileError("it is no regular file")
    if found.st_size > most_bytes:
        file.close()
        raise UnfitFileError(f"it has {found.st_size:,} bytes, more than the {most_bytes:,} of one")
    return file


def read_regular(path: Path, *, most_bytes: int) -> bytes:
    """Read such a file whole.

    Raises:
        OSError: as for `open_regular`.
    """
    with open_regular(path, most_bytes=most_bytes) as file:
        return file.read(most_bytes)


def regular_digest(path: Path, *, most_bytes: int) -> str:
    """Return the SHA-256 of such a file in hexadecimal.

    Raises:
        OSError: as for `open_regular`.
    """
    with open_regular(path, most_bytes=most_bytes) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
