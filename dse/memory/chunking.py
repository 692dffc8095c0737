"""Sizes of chunks as variables of the memory model.

How a tensor is divided into chunks is no polynomial in its channels: sizes are rounded, and narrow
tensors have fewer chunks. So each chunk's size becomes a variable, traced at a marker size like the
channels. A table holds its value for every width; it is 0 for a chunk that doesn't exist. What is
made while a chunk is computed counts only if that chunk exists.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dse.errors import MemoryModelError
from dse.networks.slots import Sizes


@dataclass(frozen=True)
class Chunking:
    """One way of dividing a tensor.

    Attributes:
        parts: The traced number of parts.
        most: Number of chunks, at most.
        sizes: The engine's sizes.
    """

    parts: int
    most: int
    sizes: Sizes


@dataclass
class MarkedChunks:
    """Divides marked widths into chunks of distinct sizes, and others as the engine does.

    Attributes:
        smallest: Smallest number of parts that is a marker.
        chunkings: Ways of dividing found so far, without repetitions.
        sizes: For each of these, the traced size of each chunk.
        calls: For each division in order, the way; None where the engine divides.
        now: Way and number of the chunk that is being computed; None outside of chunks.
    """

    smallest: int
    chunkings: list[Chunking] = field(default_factory=list)
    sizes: list[tuple[int, ...]] = field(default_factory=list)
    calls: list[int | None] = field(default_factory=list)
    now: tuple[int, int] | None = None

    def chunks(self, parts: int, most: int, sizes: Sizes) -> Iterator[int]:
        """Yield the size of each chunk, when its computation begins."""
        if parts < self.smallest:
            self.calls.append(None)
            yield from sizes(parts, most)
            return
        way = self._way(parts, most, sizes)
        self.calls.append(way)
        yield from _numbered(self, way, self.sizes[way])

    def _way(self, parts: int, most: int, sizes: Sizes) -> int:
        for way, known in enumerate(self.chunkings):
            if known == Chunking(parts, most, sizes):
                return way
        self.chunkings.append(Chunking(parts, most, sizes))
        self.sizes.append(self._distinct(parts, most))
        return len(self.sizes) - 1

    def _distinct(self, parts: int, most: int) -> tuple[int, ...]:
        """Return sizes that no other chunk has."""
        taken = {size for known in self.sizes for size in known}
        rng = np.random.default_rng([parts, most])
        equal = parts // most
        while True:
            first = _primes(rng.integers(equal * 3 // 4, equal, size=most - 1).tolist())
            found = (*first, parts - sum(first))
            if len(taken | set(found)) == len(taken) + most:
                return found


@dataclass
class RepeatedChunks:
    """Divides other widths in the ways of a trace at markers, call by call.

    Attributes:
        marked: What the trace at markers found.
        sizes: For each way of dividing, the size of each chunk.
        now: As in ``MarkedChunks``.
    """

    marked: MarkedChunks
    sizes: list[tuple[int, ...]] = field(default_factory=list)
    now: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Begin with the first call."""
        self.sizes = [()] * len(self.marked.chunkings)
        self._calls = iter(self.marked.calls)

    def chunks(self, parts: int, most: int, sizes: Sizes) -> Iterator[int]:
        """Yield the size of each chunk, when its computation begins."""
        way = next(self._calls, None)
        if way is None:
            yield from sizes(parts, most)
            return
        if parts < most:
            raise ValueError(f"{parts} parts can't be traced in {most} chunks")
        less = [max(1, parts // most - place % 2) for place in range(most - 1)]
        self.sizes[way] = (*less, parts - sum(less))
        yield from _numbered(self, way, self.sizes[way])


def _numbered(
    watch: MarkedChunks | RepeatedChunks, way: int, sizes: Sequence[int]
) -> Iterator[int]:
    try:
        for place, size in enumerate(sizes):
            watch.now = (way, place)
            yield size
    finally:
        watch.now = None


def _primes(numbers: Sequence[int]) -> list[int]:
    """Return the next prime from each number on."""
    return [next(n for n in range(number, 2 * number + 2) if _is_prime(n)) for number in numbers]


def _is_prime(number: int) -> bool:
    return number > 1 and bool((number % np.arange(2, int(number**0.5) + 1)).all())


def size_table(ways: Sequence[Chunking], largest: Sequence[int]) -> NDArray[np.int64]:
    """Return the size of each chunk for every number of parts: (ways, parts + 1, chunks).

    Args:
        ways: Ways of dividing.
        largest: Largest number of parts of each.

    Raises:
        MemoryModelError: If an engine makes more chunks than it may.
    """
    most = max((way.most for way in ways), default=0)
    table = np.zeros((len(ways), max(largest, default=0) + 1, most), dtype=np.int64)
    for row, way, parts in zip(table, ways, largest, strict=True):
        for count in range(1, parts + 1):
            sizes = way.sizes(count, way.most)
            if len(sizes) > way.most or sum(sizes) != count:
                raise MemoryModelError(
                    f"{count} channels are computed in chunks of {sizes}, which isn't {way.most} "
                    "chunks at most"
                )
            row[count, : len(sizes)] = sizes
    return table
