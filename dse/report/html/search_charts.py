"""Charts of the search: hypervolume over trials, importance of dimensions, fidelities."""

from collections.abc import Sequence

import numpy as np

from dse.plain_text import one_line
from dse.report.html.chart import (
    ACCENT,
    BLUE,
    INK,
    MUTED,
    Cell,
    Chart,
    Rows,
    named,
    number,
    significant,
)
from dse.report.html.entries import Entry
from dse.report.html.vega import Spec
from dse.report.search_tables import MOST_SHOWN
from dse.report.selection import baseline_hypervolume, hypervolume_shares
from dse.report.wording import mib
from dse.results.fidelity import bands, trained_at_both
from dse.results.importance import Importances
from dse.results.records import RunRecords

_BAR_HEIGHT = 22


def history_chart(records: RunRecords) -> Chart:
    """Return the chart of the hypervolume after each trial, with that of the baselines."""
    shares = 100 * hypervolume_shares(records)
    rises = np.diff(shares, prepend=0.0) > 0
    baseline = baseline_hypervolume(records)
    rows = [
        (count, significant(share), int(rise), records.trials[count - 1].number)
        for count, (share, rise) in enumerate(zip(shares, rises, strict=True), start=1)
    ]
    drawn = [*shares[shares > 0], *([] if baseline is None else [100 * baseline])]
    low, high = min(drawn, default=0.0), max(drawn, default=1.0)
    room = 0.08 * max(high - low, 1.0)
    y = number("y", "Hypervolume (% of box)", tickCount=5)
    bottom = max(0.0, low - room)
    y["scale"] = {"domain": [bottom, high + room], "nice": False, "zero": False}
    x = number("x", "Trials (of all states)", format="d", grid=False, tickMinStep=1)
    x["scale"] = {"domain": [0, len(shares)], "nice": False}
    tip = [
        {"field": "number", "title": "trial"},
        {"field": "y", "title": "hypervolume, % of box", "format": ".2f"},
    ]
    return Chart(
        name="hypervolume",
        description="Hypervolume of the front after each trial",
        height=230,
        spec={
            "encoding": {"y": y},
            "layer": [
                *(
                    []
                    if baseline is None
                    # On the axis there is no room for a name below the line.
                    else _baseline_layers(below=bottom + room / 2 < 100 * baseline < shares[-1])
                ),
                {
                    "data": named("trials"),
                    "mark": {
                        "type": "line",
                        "interpolate": "step-after",
                        "color": BLUE,
                        "clip": True,
                    },
                    "encoding": {"x": x},
                },
                {
                    "data": named("trials"),
                    "transform": [{"filter": "datum.rise"}],
                    "mark": {"type": "circle", "color": BLUE, "opacity": 1, "size": 55},
                    "encoding": {"x": x, "tooltip": tip},
                },
            ],
        },
        data={
            "trials": Rows(columns=("x", "y", "rise", "number"), rows=rows),
            "baselines": Rows(
                columns=("y",),
                rows=[] if baseline is None else [(significant(100 * baseline),)],
            ),
        },
    )


def _baseline_layers(*, below: bool) -> list[Spec]:
    """Return the line of the baselines, with its name on the side where the search is not."""
    return [
        {
            "data": named("baselines"),
            "mark": {"type": "rule", "color": INK, "strokeDash": [6, 3]},
        },
        {
            "data": named("baselines"),
            "mark": {
                "type": "text",
                "text": "baselines alone",
                "color": INK,
                "align": "right",
                "baseline": "top" if below else "bottom",
                "dy": 4 if below else -4,
                "fontSize": 12,
                "x": {"expr": "width"},
            },
        },
    ]


def importance_chart(found: Importances, *, metric: str) -> Chart:
    """Return the chart of the most important dimensions, as bars with their spread."""
    rows: list[tuple[Cell, ...]] = [
        (
            one_line(one.name),
            significant(100 * one.mean),
            *(significant(100 * (one.mean + sign * one.spread)) for sign in (-1, 1)),
        )
        for one in found.dimensions[:MOST_SHOWN]
    ]
    x = number("mean", f"Importance (points of {metric})", tickCount=6)
    y = {
        "field": "name",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {"labelLimit": {"expr": "width < 430 ? 130 : 260"}, "ticks": False},
    }
    tip = [
        {"field": "name", "title": "dimension"},
        {"field": "mean", "title": "points", "format": ".2f"},
        {"field": "low", "title": "mean less s.d.", "format": ".2f"},
        {"field": "high", "title": "mean plus s.d.", "format": ".2f"},
    ]
    return Chart(
        name="importance",
        description="Importance of each dimension of the search",
        height=_BAR_HEIGHT * len(rows) + 10,
        spec={
            "data": named("bars"),
            "encoding": {"y": y},
            "layer": [
                {
                    "mark": {"type": "bar", "color": BLUE, "height": {"band": 0.62}},
                    "encoding": {"x": x, "tooltip": tip},
                },
                {
                    "mark": {"type": "rule", "color": MUTED, "strokeWidth": 1.5},
                    "encoding": {
                        "x": {"field": "low", "type": "quantitative"},
                        "x2": {"field": "high"},
                    },
                },
            ],
        },
        data={"bars": Rows(columns=("name", "mean", "low", "high"), rows=rows)},
    )


def fidelity_chart(records: RunRecords, entries: Sequence[Entry]) -> Chart:
    """Return the chart of accuracies after short and full training, by band of memory."""
    both = trained_at_both(records)
    spans = {
        one.digest: f"{mib(band.low_bytes):.3g} to {mib(band.high_bytes):.3g} MiB"
        for band in bands(both)
        for one in band.members
    }
    ids = {entry.candidate.digest: number for number, entry in enumerate(entries)}
    measure = records.measure
    rows: list[tuple[Cell, ...]] = [
        (
            ids[one.digest],
            significant(measure.shown(one.short)),
            significant(measure.shown(one.full)),
            spans[one.digest],
        )
        for one in both
    ]
    place = {
        "x": number("x", f"{measure.short_title}, short{measure.unit}", grid=False),
        "y": number("y", f"{measure.short_title}, full{measure.unit}"),
    }
    sides = ([one.short for one in both], [one.full for one in both])
    for axis, scores in zip(place.values(), sides, strict=True):
        room = max(0.08 * (max(scores) - min(scores)), 0.002)
        domain = [measure.shown(end) for end in (min(scores) - room, max(scores) + room)]
        axis["scale"] = {"domain": domain, "nice": False, "zero": False}
    return Chart(
        name="fidelity",
        description="Scores after the full training over those after the short training",
        height=260,
        spec={
            "data": named("points"),
            "params": [{"name": "selected", "value": -1}],
            "encoding": place,
            "layer": [
                {
                    "mark": {
                        "type": "circle",
                        "size": 110,
                        "opacity": 1,
                        "cursor": "pointer",
                        "tooltip": {"content": "data"},
                    },
                    "encoding": {
                        "color": {
                            "field": "band",
                            "type": "ordinal",
                            "sort": list(dict.fromkeys(spans.values()))[::-1],
                            "scale": {"scheme": {"name": "viridis", "extent": [0.3, 0.85]}},
                        }
                    },
                },
                {
                    "transform": [{"filter": "datum.id === selected"}],
                    "mark": {"type": "point", "size": 330, "color": ACCENT, "strokeWidth": 2.5},
                },
            ],
        },
        data={"points": Rows(columns=("id", "x", "y", "band"), rows=rows)},
    )
