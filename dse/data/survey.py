"""Checks every image file before training: whether it can be read, and the range of its values.

Results are stored in the cache folder by each file's path, size and modification time, so that a
large data set is read once and not by every command.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dse.atomic import replaced_whole
from dse.caches import cache_folder
from dse.data.decode import deep, deep_colour, extremes_of, opened
from dse.data.pixels import KINDS, Extremes, Scale, decide
from dse.digests import bytes_digest, raw_digest
from dse.errors import UnreadableImageError

OnCount = Callable[[int, int], None]

_AT_ONCE = 256  # files between two progress reports
_SILENCE_SECONDS = 5.0
KEPT_RESULTS = 500_000  # results of earlier checks, at 25 bytes each
_RECORD = np.dtype([("key", "<u8"), ("kind", "u1"), ("low", "<f8"), ("high", "<f8")])


@dataclass(frozen=True)
class Survey:
    """The result of checking image files.

    Attributes:
        scale: the values that become white.
        read: number of files that were decoded; the others were known already.
    """

    scale: Scale
    read: int


def survey(
    paths: Sequence[Path],
    *,
    everything: bool,
    known: Path | None = None,
    on_count: OnCount | None = None,
) -> Survey:
    """Check image files.

    Args:
        paths: the files.
        everything: whether to decode every file, not only those with values larger than bytes.
        known: file with the results of earlier checks, which is updated; None stores nothing.
        on_count: called with the number of files checked and their total.

    Raises:
        UnreadableImageError: if files can't be decoded; gives their number and names the first.
        DataError: if the scale of an image's values can't be determined.
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
            if on_count is not None:
                on_count(min(start + _AT_ONCE, len(left)), len(left))
    if known is not None and read:
        memory.add(
            (key, found[path]) for path, key in zip(paths, keys, strict=True) if path in found
        )
        memory.write(known)
    _raise(broken)
    return Survey(decide((str(path), found.get(path, Extremes("bytes"))) for path in paths), read)


def reading(say: Callable[[str], None]) -> OnCount:
    """Return a callback that reports the progress of reading every few seconds."""
    last = time.monotonic()

    def on_count(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SILENCE_SECONDS and done < total:
            last = now
            say(f"checking that all images can be read: {done:,} of {total:,}")

    return on_count


def memory_file(root: Path) -> Path:
    """Return the file that stores what is known of the images below a root."""
    digest = bytes_digest(os.fsencode(root.resolve()), length=16)
    return cache_folder() / f"checked-images-{digest}.npy"


def key_of(path: Path) -> int | None:
    """Return a digest of a file's path, size and modification time; None if it is missing."""
    try:
        state = path.stat()
    except OSError:
        return None
    text = os.fsencode(path.absolute()) + f":{state.st_size}:{state.st_mtime_ns}".encode()
    return int.from_bytes(raw_digest(text)[:8], "little")


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
        """Load a file; a missing or damaged one counts as empty."""
        rows: npt.NDArray[np.void] = np.empty(0, _RECORD)
        if file is not None:
            with suppress(OSError, ValueError, EOFError):
                held = np.load(file, allow_pickle=False)
                sound = held.dtype == _RECORD and (held["kind"] < len(KINDS)).all()
                rows = held.reshape(-1) if sound else rows
        return cls(
            {int(key): (int(kind), float(low), float(high)) for key, kind, low, high in rows}
        )

    def of(self, key: int) -> Extremes:
        kind, low, high = self.rows[key]
        return Extremes(KINDS[kind], low, high)

    def add(self, found: Iterable[tuple[int | None, Extremes]]) -> None:
        """Add results; a file that is missing has no key. Old ones are dropped if there are many.

        The results of files that were changed, moved or deleted are never used again.
        """
        added = {
            key: (KINDS.index(one.kind), one.low, one.high) for key, one in found if key is not None
        }
        earlier = [row for row in self.rows.items() if row[0] not in added]
        self.rows = dict(earlier[-KEPT_RESULTS:]) | added

    def write(self, file: Path) -> None:
        """Store everything; errors are ignored because this is only a cache."""
        rows = [(key, *values) for key, values in self.rows.items()]
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            with replaced_whole(file) as partial, partial.open("wb") as opened_file:
                np.save(opened_file, np.array(rows, dtype=_RECORD))
