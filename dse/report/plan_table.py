"""The plan of a lean step as a table."""

from typing import TYPE_CHECKING

from dse.report.render import NOTHING, Column, Row, Table
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


def plan_table(plan: "PlanFigures") -> Table:
    """Build the table of a plan, a row for each block in order."""
    raw: list[Row] = [
        {
            "block": block.block,
            "level": block.level,
            "chunks": block.chunks,
            "recognised": "true" if block.recognised else "false",
            "held_bytes": block.held_bytes,
            "time_share": block.time_share,
        }
        for block in plan.blocks
    ]
    raw += [{"block": name, "level": "stock", "recognised": "false"} for name in plan.untraced]
    texts = [
        {_shown(title): text for title, text in zip(PLAN_HEADER, row, strict=True)}
        for row in plan_rows(plan)
    ]
    return Table(
        name="plan",
        fields=["block", "level", "chunks", "recognised", "held_bytes", "time_share"],
        rows=[{**row, **text} for row, text in zip(raw, texts, strict=True)],
        columns=[_column(title) for title in PLAN_HEADER],
    )


def _column(title: str) -> Column:
    return Column(
        title=f"{title[0].upper()}{title[1:]}",
        show=lambda row: str(row[_shown(title)] or NOTHING),
        align="left" if title in {"block", "level"} else "right",
    )


def _shown(title: str) -> str:
    return f"shown {title}"


def plan_note(plan: "PlanFigures", *, label: str) -> str:
    """Explain the plan of one candidate."""
    text = (
        f"What each block of the lean step of {label} does: stock PyTorch, lean (keeps only what "
        "the backward pass needs), chunked (computes its widest tensor in parts) or recomputed "
        "(keeps its input alone). *Holds* counts from its forward to its backward pass."
    )
    if plan.time is None:
        return text
    return f"{text} The step is estimated to take {plan.time:.2f} times the stock step's time."
