"""Reads small text files named by a user; refuses devices, pipes and large files."""

import errno
import os
import stat
from pathlib import Path

MOST_BYTES = 16 * 2**20
"""Limit for studies, search spaces, candidates and recipes; real ones have a few thousand."""

_KINDS = (
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISFIFO, "it is a pipe"),
    (stat.S_ISSOCK, "it is a socket"),
    (stat.S_ISCHR, "it is a device"),
    (stat.S_ISBLK, "it is a device"),
)


def read_text(path: Path, *, most_bytes: int = MOST_BYTES) -> str:
    """Read a regular file as UTF-8.

    Args:
        path: path of the file; links are followed.
        most_bytes: a larger file is refused before it is read.

    Raises:
        OSError: if it is missing, unreadable, too large or not a regular file; the reason is in
            `strerror`.
        UnicodeDecodeError: if it isn't UTF-8.
    """
    try:
        # Opening a pipe would wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a name with a zero byte
        raise OSError(errno.EINVAL, f"no file can have this name ({error})", str(path)) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = next((what for test, what in _KINDS if test(status.st_mode)), "it is not a file")
            raise OSError(errno.EINVAL, f"{kind}, not a text file", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(most_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {most_bytes // 2**20} MiB", str(path))
    return content.decode("utf-8")


def exists(path: str | Path) -> bool:
    """Return whether a path exists; False for paths that no file system can hold."""
    return os.path.exists(path)  # noqa: PTH110  # pathlib's raises if a name is too long


def too_deep(value: object, *, most: int) -> bool:
    """Return whether tables and lists are nested deeper than a limit, without recursion."""
    level = [value]
    for _ in range(most):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return any(isinstance(one, dict | list) for one in level)
