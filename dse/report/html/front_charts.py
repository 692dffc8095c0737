"""The front as two charts: the search after short training, and what was trained in full."""

from collections.abc import Sequence

from dse.report.front_limits import (
    final_spans,
    infeasible_sizes,
    short_points,
    size_axis,
)
from dse.report.front_series import KINDS, baseline_kind, kind_title
from dse.report.html.chart import (
    ACCENT,
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    PAPER,
    VERMILLION,
    Cell,
    Chart,
    Rows,
    named,
    significant,
)
from dse.report.html.entries import Entry
from dse.report.html.vega import Spec
from dse.report.scales import score_limits
from dse.report.selection import attained, front_trials
from dse.report.wording import mib, size_label
from dse.results.candidate_records import BaselineRecord
from dse.results.records import RunRecords

_HEIGHT = 340
_SIZE, _SMALL = 75, 32  # of a marker, in square pixels
_FEW = 150  # more points than this have small markers
_TRIAL, _FRONT, _FINALIST = "trial", "trial on the front", "finalist"
# Shape, fill and outline of each series; those of baselines are as in the report's pictures.
_LOOKS: dict[str, tuple[str, str, str]] = {
    _TRIAL: ("circle", PAPER, GREY),
    _FRONT: ("circle", BLUE, BLUE),
    _FINALIST: ("diamond", VERMILLION, VERMILLION),
    "unpruned": ("square", INK, INK),
    "uniform": ("square", PAPER, INK),
    "peak-greedy": ("triangle-up", PAPER, GREEN),
    "random": ("triangle-down", PAPER, GREY),
    "other recipe": ("cross", MUTED, MUTED),
}
# Of the curves: dash pattern and colour.
_CURVES = {"uniform": ([6, 3], INK), "peak-greedy": ([2, 2], GREEN)}


def search_chart(records: RunRecords, entries: Sequence[Entry]) -> Chart:
    """Return the chart of everything trained at `short`.

    Args:
        records: a run of which something can be drawn.
        entries: its candidates, by their numbers on the page.
    """
    points, curves = _search_points(records, entries), _curves(records)
    axis = size_axis(records)
    steps = [
        (mib(t.peak_bytes), records.measure.shown(t.accuracy or 0.0))
        for t in attained(front_trials(records))
    ]
    if steps:
        reach = max([steps[-1][0], *(mib(one) for one in records.study.search.budget_bytes)])
        steps.append((min(reach, axis.limits.high), steps[-1][1]))
    layers: list[Spec] = [
        {
            "data": named(f"curve {kind}"),
            "mark": {"type": "line", "strokeDash": dash, "color": colour, "strokeWidth": 1.3},
            "encoding": _places(),
        }
        for kind, (dash, colour) in _CURVES.items()
        if kind in curves
    ]
    if steps:
        layers.insert(
            0,
            {
                "data": named("attained"),
                "mark": {
                    "type": "line",
                    "interpolate": "step-after",
                    "color": BLUE,
                    "strokeWidth": 2,
                },
                "encoding": _places(),
            },
        )
    untrained = infeasible_sizes(records)
    if untrained:
        layers.append(
            {
                "data": named("untrained"),
                "mark": {
                    "type": "tick",
                    "color": GREY,
                    "height": 8,
                    "thickness": 1,
                    "y": _HEIGHT - 4,
                },
                "encoding": {"x": _places()["x"], "y": None},
            }
        )
    return Chart(
        name="front-short",
        description="Scores after the short training over peak memory, a point for each candidate",
        height=_HEIGHT,
        spec=_front_spec(records, layers, [kind for kind, _ in points], short=True),
        data={
            **_points_and_budgets(records, points),
            "attained": Rows(columns=("x", "y"), rows=[_rounded(*one) for one in steps]),
            "untrained": Rows(columns=("x",), rows=[(significant(x),) for x in untrained]),
            **{
                f"curve {kind}": Rows(columns=("x", "y"), rows=[_rounded(*one) for one in own])
                for kind, own in curves.items()
            },
        },
    )


def full_chart(records: RunRecords, entries: Sequence[Entry]) -> Chart:
    """Return the chart of everything trained at `full`, with spreads over the seeds."""
    kinds: dict[str, list[tuple[str, list[Cell]]]] = {}
    for number, entry in enumerate(entries):
        final = entry.final
        if final is None:
            continue
        own = None if entry.trial is not None and final.trial is not None else entry.baseline
        key, title = (_FINALIST, _FINALIST) if own is None else _kind(records, own)
        mean = records.measure.shown(final.validation_accuracy)
        spread = records.measure.shown_spread(final.validation_spread or 0.0)
        row: list[Cell] = [number, *_rounded(mib(entry.peak_bytes), mean), title]
        row += [*map(significant, (mean - spread, mean + spread))]
        kinds.setdefault(key, []).append((title, row))
    points = [(kind, kinds[kind]) for kind in (_FINALIST, *KINDS) if kind in kinds]
    bars = {
        "data": named("points"),
        "mark": {"type": "rule", "color": MUTED, "strokeWidth": 1.5},
        "encoding": {**_places("low"), "y2": {"field": "high"}},
    }
    return Chart(
        name="front-full",
        description="Scores after the full training over peak memory, with spreads over seeds",
        height=_HEIGHT,
        spec=_front_spec(records, [bars], [kind for kind, _ in points], short=False),
        data=_points_and_budgets(records, points),
    )


Points = list[tuple[str, list[tuple[str, list[Cell]]]]]
"""For each kind of series, its points: title of the series, and the row of its data."""


def _search_points(records: RunRecords, entries: Sequence[Entry]) -> Points:
    kinds: dict[str, list[tuple[str, list[Cell]]]] = {}
    for number, entry in enumerate(entries):
        place = _rounded(mib(entry.peak_bytes), records.measure.shown(entry.short or 0.0))
        if entry.trial is not None:
            kind = _FRONT if entry.on_front else _TRIAL
            kinds.setdefault(kind, []).append((kind, [number, *place, kind]))
        if entry.baseline is not None:
            kind, title = _kind(records, entry.baseline)
            kinds.setdefault(kind, []).append((title, [number, *place, title]))
    order = (_TRIAL, *KINDS, _FRONT)  # as they are drawn, the last on top
    return [(kind, kinds[kind]) for kind in order if kind in kinds]


def _kind(records: RunRecords, baseline: BaselineRecord) -> tuple[str, str]:
    """Return the kind of a baseline, and the title of its series."""
    kind = baseline_kind(baseline)
    return kind, kind_title(kind, [b for b in records.baselines if baseline_kind(b) == kind])


def _curves(records: RunRecords) -> dict[str, list[tuple[float, float]]]:
    """Return the curves of baselines over peak memory; that of uniform ratios ends unpruned."""
    found = {}
    for kind in _CURVES:
        own = [one for one in records.baselines if baseline_kind(one) == kind]
        if kind == "uniform" and own and records.unpruned is not None:
            own.append(records.unpruned)
        own.sort(key=lambda one: one.peak_bytes)
        if own:
            found[kind] = [
                (mib(one.peak_bytes), records.measure.shown(one.accuracy)) for one in own
            ]
    return found


def _points_and_budgets(records: RunRecords, points: Points) -> dict[str, Rows]:
    columns = ("id", "x", "y", "series", "low", "high")
    rows = [row for _, own in points for _, row in own]
    budgets = size_axis(records).budgets
    return {
        "points": Rows(columns=columns[: max(map(len, rows), default=0)], rows=rows),
        "budgets": Rows(
            columns=("x", "text"),
            rows=[(significant(mib(one)), size_label(one)) for one in budgets],
        ),
    }


def _front_spec(
    records: RunRecords, layers: list[Spec], kinds: Sequence[str], *, short: bool
) -> Spec:
    axis = size_axis(records)
    limits = axis.limits
    scores = short_points(records)[:, 1] if short else final_spans(records)
    low, high = score_limits(scores, records.measure)
    size = _SIZE if len(scores) <= _FEW else _SMALL
    x = {
        "field": "x",
        "type": "quantitative",
        "title": "Peak memory of one training step (MiB)",
        "scale": {
            "domain": [limits.low, limits.high],
            "nice": False,
            "zero": False,
            "type": "log" if limits.logarithmic else "linear",
        },
        "axis": {
            **({"format": "~g"} if limits.logarithmic else {}),
            "tickCount": {"expr": "width < 430 ? 5 : 8"},
            "grid": False,
        },
    }
    y = {
        "field": "y",
        "type": "quantitative",
        "title": f"{records.measure.short_title}{records.measure.unit}",
        "scale": {"domain": [low, high], "nice": False, "zero": False},
        "axis": {"tickCount": 6},
    }
    return {
        "params": [{"name": "selected", "value": -1}, {"name": "reach", "value": 90}],
        "encoding": {"x": x, "y": y},
        "layer": [
            *(_budget_layers() if axis.budgets else []),
            *layers,
            *(_point_layers(records, kinds, size=size) if kinds else []),
        ],
    }


def _budget_layers() -> list[Spec]:
    x = {"field": "x", "type": "quantitative"}
    return [
        {
            "data": named("budgets"),
            "mark": {"type": "rule", "color": MUTED, "strokeDash": [2, 3], "y": 0, "y2": _HEIGHT},
            "encoding": {"x": x, "y": None},
        },
        {
            "data": named("budgets"),
            "mark": {
                "type": "text",
                "color": MUTED,
                "fontSize": 11,
                "angle": 270,
                "y": 4,
                "align": "right",
                "baseline": "bottom",
                "dx": 0,
                "dy": -3,
            },
            "encoding": {"x": x, "y": None, "text": {"field": "text"}},
        },
    ]


def _point_layers(records: RunRecords, kinds: Sequence[str], *, size: int) -> list[Spec]:
    """Return the points, a ring around the selected one, and larger areas that can be tapped."""
    titles = [_title(records, kind) for kind in kinds]
    looks = [_LOOKS[kind] for kind in kinds]

    def series(part: int) -> Spec:
        return {
            "field": "series",
            "type": "nominal",
            "scale": {"domain": titles, "range": [look[part] for look in looks]},
            "legend": {"symbolSize": 80, "columns": {"expr": "width < 430 ? 1 : 2"}},
        }

    return [
        {
            "data": named("points"),
            "mark": {"type": "point", "size": size, "opacity": 1, "strokeWidth": 1.6},
            "encoding": {**_places(), "shape": series(0), "fill": series(1), "stroke": series(2)},
        },
        {
            "data": named("points"),
            "transform": [{"filter": "datum.id === selected"}],
            "mark": {"type": "point", "size": 330, "color": ACCENT, "strokeWidth": 2.5},
            "encoding": _places(),
        },
        {
            "data": named("points"),
            "mark": {
                "type": "circle",
                "opacity": 0,
                "size": {"expr": "reach"},
                "cursor": "pointer",
                "tooltip": {"content": "data"},
            },
            "encoding": _places(),
        },
    ]


def _title(records: RunRecords, kind: str) -> str:
    own = [one for one in records.baselines if baseline_kind(one) == kind]
    return kind_title(kind, own) if own else kind


def _places(y: str = "y") -> Spec:
    return {
        "x": {"field": "x", "type": "quantitative"},
        "y": {"field": y, "type": "quantitative"},
    }


def _rounded(x: float, y: float) -> tuple[float, float]:
    return significant(x), significant(y)
