"""What each segment can do, and plans in which all segments do the same."""

from dataclasses import replace

from dse.engines.build import Division
from dse.engines.chunks import chunk_size
from dse.engines.dense import Linear
from dse.engines.plan import LeanPlan, Level, SegmentPlan
from dse.engines.program import Part

CHUNKS = (2, 4, 8)

Choice = tuple[Level, int]
"""A level and its number of chunks."""


def choices(part: Part) -> tuple[Choice, ...]:
    """Return what a segment can do."""
    found: list[Choice] = [("stock", 1)]
    if part.ops is not None:
        found.append(("lean", 1))
    if part.recomputes:
        found.append(("recomputed", 1))
    if part.span is not None and part.ops is not None:
        made, wide = part.ops[part.span.start], part.shapes[part.span.start + 1]
        parts = wide[-1] if isinstance(made, Linear) else wide[1]
        sizes: set[int] = set()
        for count in CHUNKS:
            size = chunk_size(parts, count)
            if size < parts and size not in sizes:
                found.append(("chunked", count))
            sizes.add(size)
    return tuple(found)


def uniform_plan(found: Division, plan: LeanPlan, level: Level, chunks: int = 1) -> LeanPlan:
    """Return a plan in which every segment that can has one level.

    Args:
        found: The network's segments.
        plan: What the other segments do.
        level: The level.
        chunks: Number of chunks, if the level is ``chunked``.
    """

    def changed(segment: SegmentPlan, part: Part) -> SegmentPlan:
        able = part.span is not None if level == "chunked" else (level, 1) in choices(part)
        if not able:
            return segment
        return replace(segment, level=level, chunks=chunks)

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
