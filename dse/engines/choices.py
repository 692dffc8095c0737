"""What each segment can do."""

from collections.abc import Iterator
from math import prod

from dse.engines.chunks import Chunked, chunk_size
from dse.engines.dense import Linear
from dse.engines.plan import Choice
from dse.engines.program import Part
from dse.engines.spans import sliced

CHUNKS = (2, 4, 8)
SLICES = 8
WIDE = 1 / 12  # of a network's largest value: what smaller ones need at a time matters little


def choices(part: Part, *, largest: int = 0) -> tuple[Choice, ...]:
    """Return what a segment can do.

    Args:
        part: The segment.
        largest: Numbers in the largest value of the network, for two images. Segments whose values
            are far smaller get fewer choices, which saves time.
    """
    wide = max((prod(shape) for shape in part.shapes), default=0) >= WIDE * largest
    return tuple(_choices(part, wide=wide))


def _choices(part: Part, *, wide: bool) -> Iterator[Choice]:
    yield Choice("stock")
    if part.ops is None:
        if part.recomputes:
            yield Choice("recomputed")
        return
    slices = (1, SLICES) if wide and _slices(part) else (1,)
    for count in slices:
        yield Choice("lean", count)
        for rerun in range(1, len(part.order)):
            yield Choice("lean", count, part.order[:rerun])
        yield Choice("recomputed", count)
    if part.span is None:
        return
    made, shape = part.ops[part.span.start], part.shapes[part.span.start + 1]
    parts = shape[-1] if isinstance(made, Linear) else shape[1]
    sizes: set[int] = set()
    for count in CHUNKS if wide else CHUNKS[1:2]:
        size = chunk_size(parts, count)
        if size < parts and size not in sizes:
            yield Choice("chunked", count)
        sizes.add(size)


def _slices(part: Part) -> bool:
    """Whether slices of channels divide anything."""
    found, _ = sliced(part.ops or (), part.shapes, SLICES)
    return any(isinstance(op, Chunked) for op in found)
