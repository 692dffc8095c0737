"""The plan of a lean step as a chart: what each block holds, and what it does."""

from dse.plain_text import one_line
from dse.report.html.chart import (
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    Cell,
    Chart,
    Rows,
    named,
    number,
    significant,
)
from dse.report.plan_table import plan_rows
from dse.report.wording import mib
from dse.step.plan_figures import PlanFigures

_ROW = 17  # pixels of a block
_LEVELS = {"stock": GREY, "lean": BLUE, "chunked": GREEN, "recomputed": VERMILLION}


def plan_chart(plan: PlanFigures) -> Chart | None:
    """Return the chart; None if it isn't known what the blocks hold."""
    if any(block.held_bytes is None for block in plan.blocks) or not plan.blocks:
        return None
    rows: list[tuple[Cell, ...]] = [
        (place, one_line(block.block), significant(mib(block.held_bytes or 0)), block.level, *texts)
        for place, (block, (_, _, _, *texts)) in enumerate(
            zip(plan.blocks, plan_rows(plan), strict=False)
        )
    ]
    known = "data('blocks')[datum.value]"
    used = [level for level in _LEVELS if any(block.level == level for block in plan.blocks)]
    return Chart(
        name="plan",
        description="Bytes that each block holds, by what it does",
        height=_ROW * len(rows) + 6,
        spec={
            "data": named("blocks"),
            "mark": {"type": "bar", "height": {"band": 0.7}},
            "encoding": {
                "y": {
                    "field": "place",
                    "type": "ordinal",
                    "title": None,
                    "axis": {
                        "labelExpr": f"{known} ? {known}.name : ''",
                        "labelLimit": {"expr": "width < 430 ? 120 : 220"},
                        "labelFontSize": 10,
                        "labelOverlap": True,
                        "ticks": False,
                        "domain": False,
                    },
                },
                "x": number("mib", "Held from forward to backward (MiB)", tickCount=5),
                "color": {
                    "field": "level",
                    "type": "nominal",
                    "scale": {"domain": used, "range": [_LEVELS[level] for level in used]},
                    "legend": {"symbolType": "square"},
                },
                "tooltip": [
                    {"field": "name", "title": "block"},
                    {"field": "level", "title": "level"},
                    {"field": "holds", "title": "holds"},
                    {"field": "time", "title": "share of time"},
                ],
            },
        },
        data={
            "blocks": Rows(columns=("place", "name", "mib", "level", "holds", "time"), rows=rows)
        },
    )
