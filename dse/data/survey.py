"""A look at every image file before anything is trained: whether it can be read, and its values.

What was found is kept in the cache folder, by each file's path, size and time of change, so that a
large data set is read through once and not by every command.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dse.caches import cache_folder
from dse.data.decode import deep, deep_colour, extremes_of, opened
from dse.data.pixels import KINDS, Extremes, Scale, decide
from dse.errors import UnreadableImageError

Tell = Callable[[int, int], None]

_AT_ONCE = 256  # files between two words on progress
_SILENCE_SECONDS = 5.0
_RECORD = np.dtype([("key", "<u8"), ("kind", "u1"), ("low", "<f8"), ("high", "<f8")])


@dataclass(frozen=True)
class Survey:
    """What a look at image files has found.

    Attributes:
        scale: Which values become white.
        read: Files that were decoded for it; the others were known already.
    """

    scale: Scale
    read: int


def survey(
    paths: Sequence[Path], *, everything: bool, known: Path | None = None, tell: Tell | None = None
) -> Survey:
    """Look at image files.

    Args:
        paths: The files.
        everything: Decode each; else those alone whose values are more than bytes.
        known: File of what earlier looks have found, updated; None keeps nothing.
        tell: Is told how many files of how many were looked at.

    Raises:
        UnreadableImageError: Files are no images or are broken; all are counted, the first named.
        DataError: Values of an image are on no scale that can be told.
    """
    memory = _Memory.read(known)
    keys = [key_of(path) for path in paths] if known is not None else [None] * len(paths)
    found: dict[Path, Extremes] = {
        path: memory.of(key)
        for path, key in zip(paths, keys, strict=True)
        if key is not None and key in memory.rows
    }
    left = [path for path in paths if path not in found]
    broken: list[tuple[Path, UnreadableImageError]] = []
    read = 0

    def look(path: Path) -> Extremes | UnreadableImageError | None:
        try:
            with opened(path) as image:
                return (
                    extremes_of(image) if everything or deep(image) or deep_colour(image) else None
                )
        except UnreadableImageError as error:
            return error

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for start in range(0, len(left), _AT_ONCE):
            some = left[start : start + _AT_ONCE]
            for path, result in zip(some, pool.map(look, some), strict=True):
                if isinstance(result, UnreadableImageError):
                    broken.append((path, result))
                elif result is not None:
                    found[path] = result
                    read += 1
            if tell is not None:
                tell(min(start + _AT_ONCE, len(left)), len(left))
    if known is not None and read:
        memory.write(
            known, ((key, found[p]) for p, key in zip(paths, keys, strict=True) if p in found)
        )
    _raise(broken)
    return Survey(decide((str(path), one) for path, one in found.items()), read)


def reading(say: Callable[[str], None]) -> Tell:
    """Make a word on how far a reading has come, every so many seconds, of what takes long."""
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SILENCE_SECONDS and done < total:
            last = now
            say(f"read {done:,} of {total:,} images, to see that all can be read")

    return tell


def memory_file(root: Path) -> Path:
    """Where what is known of the files below a root is kept."""
    digest = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return cache_folder() / f"checked-images-{digest}.npy"


def key_of(path: Path) -> int | None:
    """Digest a file's path, size and time of change; None where it is gone."""
    try:
        state = path.stat()
    except OSError:
        return None
    text = os.fsencode(path.absolute()) + f":{state.st_size}:{state.st_mtime_ns}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


def _raise(broken: list[tuple[Path, UnreadableImageError]]) -> None:
    if not broken:
        return
    (first, error), *others = broken
    if not others:
        raise error
    raise UnreadableImageError(first, error.reason, others=[path for path, _ in others]) from error


@dataclass
class _Memory:
    """What is known of files, by their keys."""

    rows: dict[int, tuple[int, float, float]] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path | None) -> "_Memory":
        """Read a file; one that is missing or damaged holds nothing."""
        rows: npt.NDArray[np.void] = np.empty(0, _RECORD)
        if file is not None:
            with suppress(OSError, ValueError, EOFError):
                held = np.load(file, allow_pickle=False)
                rows = held if held.dtype == _RECORD else rows
        return cls(
            {int(key): (int(kind), float(low), float(high)) for key, kind, low, high in rows}
        )

    def of(self, key: int) -> Extremes:
        kind, low, high = self.rows[key]
        return Extremes(KINDS[kind], low, high)

    def write(self, file: Path, found: Iterable[tuple[int | None, Extremes]]) -> None:
        """Keep what was found; a cache that can't be written is done without."""
        rows = [
            (key, KINDS.index(one.kind), one.low, one.high) for key, one in found if key is not None
        ]
        partial = file.with_name(f"{file.name}.{os.getpid()}.part.npy")
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(partial, np.array(rows, dtype=_RECORD))
            partial.replace(file)
