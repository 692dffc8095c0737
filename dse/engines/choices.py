"""What each segment can do, and plans in which all segments do the same."""

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from dse.engines.build import Division
from dse.engines.chunks import Chunked, chunk_size
from dse.engines.dense import Linear
from dse.engines.plan import Choice, LeanPlan, Level, SegmentPlan
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


def uniform_plan(
    found: Division, plan: LeanPlan, level: Level, chunks: int = 1, rerun: int = 0
) -> LeanPlan:
    """Return a plan in which every segment that can has one level.

    Args:
        found: The network's segments.
        plan: What the other segments do.
        level: The level.
        chunks: Number of chunks or slices.
        rerun: How many layers run again.
    """

    def changed(segment: SegmentPlan, part: Part) -> SegmentPlan:
        able = part.span is not None if level == "chunked" else Choice(level) in choices(part)
        if not able:
            return segment
        return replace(segment, level=level, chunks=chunks, rerun=part.order[:rerun])

    programs = tuple(
        replace(
            program,
            segments=tuple(
                changed(segment, part)
                for segment, part in zip(
                    program.segments, found.parts[program.module].parts, strict=True
                )
            ),
        )
        for program in plan.programs
    )
    return replace(plan, programs=programs)
