"""A hard cap on what a process allocates, set by the kernel (Linux with glibc).

The cap holds for the data segment (`RLIMIT_DATA`). It only meets a training step's own memory if
the C library takes every larger block straight from the kernel and gives it straight back, which
`PINNED` makes it do.
"""

import ctypes
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

PAGE_BYTES = 4096
LARGE_BYTES = 65536
"""Blocks from this size on are the kernel's own; smaller ones are of the heap."""

INTERPRETER_BYTES = 192 * 1024
"""For the interpreter and the nodes of the backward pass.

Nine steps of MobileNetV2, SqueezeNet and networks of two blocks, of 60 kB to 82 MB, needed at most
133 KiB beyond tensors and pages.
"""

PINNED = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(LARGE_BYTES),
    "MALLOC_MMAP_MAX_": "1000000",
    "MALLOC_TRIM_THRESHOLD_": "0",
    "MALLOC_TOP_PAD_": "0",
    "OMP_NUM_THREADS": "1",
}
"""Environment of a process that is to be capped; glibc reads it when the process starts."""

_STATUS = Path("/proc/self/status")
_SMALLEST_FILLED = 4096  # bytes of a block of the heap


def can_cap() -> bool:
    """Return whether this platform can cap a process: Linux with glibc 2.33 or newer."""
    return sys.platform == "linux" and _STATUS.exists() and hasattr(ctypes.CDLL(None), "mallinfo2")


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


class _MallocInfo(ctypes.Structure):
    """What glibc's mallinfo2 returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def fill_heap() -> None:
    """Take all free blocks of the heap from 4 kB up, which a step would use beside a cap."""
    glibc = ctypes.CDLL(None)
    glibc.mallinfo2.restype = _MallocInfo
    glibc.malloc.restype, glibc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    glibc.free.argtypes = [ctypes.c_void_p]
    size = LARGE_BYTES - 1024
    heap = glibc.mallinfo2().arena
    while size >= _SMALLEST_FILLED:
        block = glibc.malloc(size)
        if glibc.mallinfo2().arena > heap:  # it came from the kernel
            glibc.free(block)
            size = size * 3 // 4


def beyond_tensors_bytes(step: Callable[[], object], *, trained: Sequence[torch.Tensor]) -> int:
    """Run a step, and return what the kernel gives to one beyond the bytes of its tensors.

    A tensor of `LARGE_BYTES` or more has pages of its own, of which it leaves part of one unused.
    Counted are those that are saved for the backward pass, and two for each trained tensor.

    Args:
        step: runs a training step.
        trained: the tensors that the step trains.
    """
    sizes: dict[int, int] = {}

    def noted(saved: torch.Tensor) -> torch.Tensor:
        storage = saved.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return saved.detach()  # a node that held its own result would never be freed

    with torch.autograd.graph.saved_tensors_hooks(noted, lambda saved: saved):
        step()
    large = sum(size >= LARGE_BYTES for size in sizes.values())
    large += 2 * sum(one.nbytes >= LARGE_BYTES for one in trained)
    return PAGE_BYTES * large + INTERPRETER_BYTES
