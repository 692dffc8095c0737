"""Charts of networks: ratios along the front, memory over a step, one candidate's details."""

from collections.abc import Sequence
from itertools import pairwise

from dse.memory.timeline import Timeline
from dse.plain_text import one_line
from dse.report.html.chart import (
    ACCENT,
    GRID,
    INK,
    MUTED,
    PAPER,
    Cell,
    Chart,
    Rows,
    named,
    number,
    significant,
)
from dse.report.html.entries import BEYOND_TENSORS
from dse.report.html.vega import Spec
from dse.report.memory_plot import SHORT_PHASES, Panel, step_alone, styles_of, thinned, totals
from dse.report.style import CATEGORY_STYLES
from dse.report.wording import mib
from dse.results.records import RunRecords

_ROW = 15  # pixels of a channel group
_MOST_MOMENTS = 400
_MEMORY_HEIGHT = 260
_BEYOND_COLOUR = "var(--cat-beyond)"


def memory_charts(panels: Sequence[Panel]) -> list[Chart]:
    """Return a chart of memory over a step for each panel, all on the same axes."""
    steps = [step_alone(panel.timeline) for panel in panels]
    highest = max(mib(totals(step).max()) for step in steps)
    longest = max(len(step.bytes) for step in steps)
    return [
        _memory_chart(f"memory-{place}", step, highest=highest, longest=longest)
        for place, step in enumerate(steps)
    ]


def _memory_chart(name: str, step: Timeline, *, highest: float, longest: int) -> Chart:
    categories = [
        (own, style.label)
        for own, style in styles_of(step.categories)
        if step.bytes[:, step.categories.index(own)].any()
    ]
    titles = [title for _, title in categories]
    moments = thinned(totals(step), most=_MOST_MOMENTS).tolist()
    columns = [step.categories.index(own) for own, _ in categories]
    sites = [
        one_line(", ".join(part for part in (site.phase, site.operator, site.module) if part))
        for site in step.sites
    ]
    known = {text: at for at, text in enumerate(dict.fromkeys(sites[moment] for moment in moments))}
    held: list[list[Cell]] = [
        [moment, known[sites[moment]], *(significant(mib(v)) for v in step.bytes[moment, columns])]
        for moment in moments
    ]
    x = number("moment", "Moment of the step (allocations and releases)", grid=False)
    x["scale"] = {"domain": [0, longest], "nice": False}
    y = number("mib", "Memory held (MiB)", tickCount=5)
    y["scale"] = {"domain": [0, 1.1 * highest], "nice": False}
    colours = [_colour(own) for own, _ in categories]
    return Chart(
        name=name,
        description="Memory held at each moment of a training step, by category",
        height=_MEMORY_HEIGHT,
        spec={
            "layer": [
                _areas(titles, colours, x, y),
                {
                    "data": named("phases"),
                    "mark": {"type": "rule", "color": MUTED, "strokeDash": [2, 3]},
                    "encoding": {"x": {**x, "field": "start"}},
                },
                {
                    "data": named("phases"),
                    "mark": {
                        "type": "text",
                        "color": MUTED,
                        "fontSize": 11,
                        "align": "left",
                        "baseline": "top",
                        "dx": 3,
                        "y": 0,
                    },
                    "encoding": {"x": {**x, "field": "start"}, "text": {"field": "name"}},
                },
                {
                    "data": named("peak"),
                    "mark": {
                        "type": "point",
                        "shape": "triangle-down",
                        "filled": True,
                        "color": INK,
                        "size": 70,
                        "opacity": 1,
                        "yOffset": -6,
                    },
                    "encoding": {"x": x, "y": y},
                },
                _moment_rule(titles, x),
            ]
        },
        data={
            "held": Rows(columns=("moment", "site", *titles), rows=held),
            "sites": Rows(columns=("at", "where"), rows=[(at, text) for text, at in known.items()]),
            "phases": Rows(columns=("start", "name"), rows=_phases(step)),
            "peak": Rows(
                columns=("moment", "mib"),
                rows=[(step.peak_index, significant(mib(totals(step)[step.peak_index])))],
            ),
        },
    )


def _areas(titles: list[str], colours: list[str], x: Spec, y: Spec) -> Spec:
    return {
        "data": named("held"),
        "transform": [
            {"fold": titles, "as": ["category", "mib"]},
            {"calculate": f"indexof({titles!r}, datum.category)", "as": "place"},
        ],
        "mark": {
            "type": "area",
            "interpolate": "step-after",
            "opacity": 1,
            "stroke": PAPER,
            "strokeWidth": 0.4,
        },
        "encoding": {
            "x": x,
            "y": {**y, "stack": "zero"},
            "order": {"field": "place", "type": "quantitative"},
            "color": {
                "field": "category",
                "type": "nominal",
                "scale": {"domain": titles, "range": colours},
                "legend": {"symbolType": "square"},
            },
        },
    }


def _moment_rule(titles: list[str], x: Spec) -> Spec:
    """Return a rule at the moment nearest to the pointer, with what is held there."""
    return {
        "data": named("held"),
        "transform": [
            {"lookup": "site", "from": {"data": named("sites"), "key": "at", "fields": ["where"]}},
            {
                "calculate": " + ".join(f"datum[{title!r}]" for title in titles),
                "as": "together",
            },
        ],
        "params": [
            {
                "name": "moment",
                "select": {
                    "type": "point",
                    "on": "pointermove",
                    "clear": "pointerout",
                    "nearest": True,
                    "fields": ["moment"],
                },
            }
        ],
        "mark": {"type": "rule", "color": INK, "strokeWidth": 1},
        "encoding": {
            "x": x,
            "opacity": {"condition": {"param": "moment", "empty": False, "value": 1}, "value": 0},
            "tooltip": [
                {"field": "where", "title": "in"},
                {"field": "together", "title": "together, MiB", "format": ".4~g"},
                *({"field": one, "title": f"{one}, MiB", "format": ".4~g"} for one in titles[::-1]),
            ],
        },
    }


def _phases(step: Timeline) -> list[tuple[Cell, ...]]:
    """Return the start of each phase and its name, shortened or left out where it has no room."""
    phases = step.phases
    starts = [0, *(after for after in range(1, len(phases)) if phases[after] != phases[after - 1])]
    rows: list[tuple[Cell, ...]] = []
    for start, end in pairwise([*starts, len(phases)]):
        share, name = (end - start) / len(phases), phases[start]
        names = ((0.18, name), (0.06, SHORT_PHASES.get(name, name)))
        rows.append((start, next((text for least, text in names if share >= least), "")))
    return rows


def ledger_chart() -> Chart:
    """Return the chart of what a candidate and the unpruned network hold at their peaks."""
    titles, colours = map(list, zip(*category_colours(), strict=True))
    x = number("mib", "Held at the peak (MiB)", tickCount=5)
    return Chart(
        name="ledger",
        description="Bytes held at the peak by category",
        height=84,
        spec={
            "data": named("ledger"),
            "transform": [
                {"calculate": f"indexof({titles!r}, datum.category)", "as": "place"},
            ],
            "mark": {"type": "bar", "height": {"band": 0.66}, "stroke": PAPER, "strokeWidth": 0.5},
            "encoding": {
                "y": {
                    "field": "who",
                    "type": "nominal",
                    "sort": None,
                    "title": None,
                    "axis": {"ticks": False, "labelLimit": 110, "domain": False},
                },
                "x": {**x, "stack": "zero"},
                "order": {"field": "place", "type": "quantitative"},
                "color": {
                    "field": "category",
                    "type": "nominal",
                    "legend": None,
                    "scale": {"domain": titles, "range": colours},
                },
                "tooltip": [
                    {"field": "who", "title": "candidate"},
                    {"field": "category", "title": "category"},
                    {"field": "size", "title": "bytes"},
                ],
            },
        },
        data={"ledger": Rows(columns=("who", "category", "mib", "size"), rows=[])},
    )


def channels_chart(records: RunRecords) -> Chart | None:
    """Return the chart of the channels that a candidate keeps; None without channel groups."""
    if not records.groups:
        return None
    y = {
        "field": "name",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {
            "labelLimit": {"expr": "width < 430 ? 120 : 200"},
            "labelFontSize": 10,
            "labelOverlap": True,
            "ticks": False,
            "domain": False,
        },
    }
    x = number("full", "Share of channels kept (%)", format="d", values=[0, 25, 50, 75, 100])
    x["scale"] = {"domain": [0, 100], "nice": False}
    tip = [
        {"field": "name", "title": "group"},
        {"field": "text", "title": "channels kept"},
        {"field": "ratio", "title": "pruning ratio", "format": ".2f"},
    ]
    bar = {"type": "bar", "height": {"band": 0.7}}
    return Chart(
        name="channels",
        description="Share of channels that each group keeps",
        height=max(_ROW * len(records.groups), 40),
        spec={
            "data": named("channels"),
            "encoding": {"y": y, "tooltip": tip},
            "layer": [
                {"mark": {**bar, "color": GRID}, "encoding": {"x": x}},
                {
                    "mark": {**bar, "color": ACCENT},
                    "encoding": {"x": {"field": "kept", "type": "quantitative"}},
                },
            ],
        },
        data={"channels": Rows(columns=("name", "full", "kept", "text", "ratio"), rows=[])},
    )


def category_colours() -> list[tuple[str, str]]:
    """Return the title and colour of each category of memory, in order."""
    known = [(style.label, _colour(name)) for name, style in CATEGORY_STYLES.items()]
    return [*known, (BEYOND_TENSORS, _BEYOND_COLOUR)]


def _colour(category: str) -> str:
    known = category if category in CATEGORY_STYLES else "beyond"
    return f"var(--cat-{known.replace('_', '-')})"
