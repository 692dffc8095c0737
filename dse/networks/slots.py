"""Chunks of channels: their sizes while a step runs, and while the memory model traces it.

An engine that computes a tensor in chunks takes the sizes of the chunks from here. The memory model
replaces them by sizes that it can tell apart, so that each becomes a variable of its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

Sizes = Callable[[int, int], tuple[int, ...]]
"""Returns the sizes of chunks, which add up: of so many parts, in so many chunks at most."""


class ChunkWatch(Protocol):
    """Determines the sizes of chunks, and knows which chunk is being computed."""

    def chunks(self, parts: int, most: int, sizes: Sizes) -> Iterator[int]:
        """Yield the size of each chunk, when its computation begins."""


_WATCH: ContextVar[ChunkWatch | None] = ContextVar("chunk_watch", default=None)


def chunk_sizes(parts: int, most: int, sizes: Sizes) -> Iterator[int]:
    """Yield the size of each chunk, when its computation begins.

    Args:
        parts: What is divided.
        most: Number of chunks, at most.
        sizes: The engine's own sizes.
    """
    watch = _WATCH.get()
    yield from sizes(parts, most) if watch is None else watch.chunks(parts, most, sizes)


@contextmanager
def chunks_watched(watch: ChunkWatch | None) -> Iterator[None]:
    """Let a watch determine the sizes of chunks within this context."""
    before = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(before)
