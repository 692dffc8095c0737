"""The plan of a lean step as a table."""

from typing import TYPE_CHECKING

from dse.units import format_size

if TYPE_CHECKING:
    from dse.step.plan_figures import PlanFigures

PLAN_HEADER = ("block", "level", "chunks", "holds", "share of time")
UNKNOWN = "unknown"


def plan_rows(plan: "PlanFigures") -> list[tuple[str, ...]]:
    """Return a row of text for each block of a plan, and for modules that can't be traced."""
    rows: list[tuple[str, ...]] = []
    for block in plan.blocks:
        held, share = block.held_bytes, block.time_share
        rows.append(
            (
                block.block,
                block.level if block.recognised else f"{block.level} (not recognised)",
                str(block.chunks) if block.chunks > 1 else "",
                UNKNOWN if held is None else format_size(held),
                UNKNOWN if share is None else f"{100 * share:.1f} %",
            )
        )
    rows += [(name, "stock (can't be traced)", "", UNKNOWN, UNKNOWN) for name in plan.untraced]
    return rows
