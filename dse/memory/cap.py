"""A hard cap on what a process allocates, set by the kernel (Linux with glibc).

The cap holds for the data segment (`RLIMIT_DATA`). It only meets a training step's own memory if
the C library takes every larger block straight from the kernel and gives it straight back, which
`PINNED` makes it do.
"""

import re
import sys
from pathlib import Path

PINNED = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_MMAP_MAX_": "1000000",
    "MALLOC_TRIM_THRESHOLD_": "0",
    "MALLOC_TOP_PAD_": "0",
    "OMP_NUM_THREADS": "1",
}
"""Environment of a process that is to be capped; glibc reads it when the process starts."""

_STATUS = Path("/proc/self/status")


def can_cap() -> bool:
    """Return whether this platform can cap a process."""
    return sys.platform == "linux" and _STATUS.exists()


def data_segment_bytes() -> int:
    """Return the bytes of this process that count against a cap now.

    Raises:
        RuntimeError: if the kernel doesn't report it.
    """
    found = re.search(r"VmData:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"))
    if found is None:
        raise RuntimeError("/proc/self/status names no VmData: a cap needs Linux")
    return int(found[1]) * 1024


def cap_at(more_bytes: int) -> None:
    """Cap this process at what it has now plus so many bytes; it can't be lifted again."""
    import resource  # noqa: PLC0415  # Windows has no such module

    most = data_segment_bytes() + more_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
