"""What each segment can do, and plans in which all segments do the same."""

from dataclasses import replace

from dse.engines.build import Division
from dse.engines.plan import LeanPlan, Level, SegmentPlan
from dse.engines.program import Part

CHUNKS = (2, 4, 8, 16)

Choice = tuple[Level, int]
"""A level and its number of chunks."""


def choices(part: Part) -> tuple[Choice, ...]:
    """Return what a segment can do."""
    found: list[Choice] = [("stock", 1)]
    if part.ops is not None:
        found.append(("lean", 1))
    if part.recomputes:
        found.append(("recomputed", 1))
    if part.span is not None:
        found += [("chunked", count) for count in CHUNKS]
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
        if level not in {each for each, _ in choices(part)}:
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
