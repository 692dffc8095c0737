"""The heat map of pruning ratios along the front."""

from collections.abc import Sequence

from dse.plain_text import one_line
from dse.report.html.chart import ACCENT, MUTED, Cell, Chart, Rows, named
from dse.report.html.entries import Entry
from dse.report.html.vega import Spec
from dse.report.ratios_plot import pruning_ratios
from dse.report.selection import front_trials
from dse.report.wording import decimals, mib
from dse.results.records import RunRecords

_ROW = 15  # pixels of a channel group
_MOST_SVG = 2500  # more cells are drawn on a canvas


def ratios_chart(records: RunRecords, entries: Sequence[Entry]) -> Chart | None:
    """Return the heat map; None if there is no front, or the network has no channel groups."""
    front = front_trials(records)
    if not front or not records.groups:
        return None
    ids = {entry.candidate.digest: number for number, entry in enumerate(entries)}
    rows: list[tuple[Cell, ...]] = [
        (member, group, round(ratio, 3))
        for group, line in enumerate(pruning_ratios(records, front).tolist())
        for member, ratio in enumerate(line)
    ]
    places = decimals([mib(trial.peak_bytes) for trial in front])
    members = [
        (member, ids[trial.candidate.digest], f"{mib(trial.peak_bytes):.{places}f}")
        for member, trial in enumerate(front)
    ]
    groups = [(group, one_line(name)) for group, (name, _) in enumerate(records.groups)]
    return Chart(
        name="ratios",
        description="Pruning ratio of each channel group for each member of the front",
        height=max(_ROW * len(groups), 90),
        renderer="svg" if len(rows) <= _MOST_SVG else "canvas",
        spec={
            "data": named("cells"),
            "params": [{"name": "selected", "value": -1}],
            "transform": [_looked_up("group", "name"), _looked_up("member", "id", "peak")],
            "layer": [_cells(), _selected_column()],
        },
        data={
            "cells": Rows(columns=("member", "group", "ratio"), rows=rows),
            "groups": Rows(columns=("at", "name"), rows=groups),
            "members": Rows(columns=("at", "id", "peak"), rows=members),
        },
    )


def _looked_up(what: str, *fields: str) -> Spec:
    return {
        "lookup": what,
        "from": {"data": named(f"{what}s"), "key": "at", "fields": list(fields)},
    }


def _axis(what: str, label: str, *, title: str | None, **axis: object) -> Spec:
    """Return the encoding of members or groups by number, with their texts as labels."""
    known = f"data('{what}s')[datum.value]"
    return {
        "field": what,
        "type": "ordinal",
        "title": title,
        "axis": {
            "labelExpr": f"{known} ? {known}.{label} : ''",
            "labelOverlap": True,
            "ticks": False,
            "domain": False,
            **axis,
        },
    }


def _members() -> Spec:
    title = "Members of the front by peak memory (MiB)"
    return _axis("member", "peak", title=title, labelAngle={"expr": "width < 430 ? -90 : 0"})


def _cells() -> Spec:
    limit = {"expr": "width < 430 ? 120 : 220"}
    return {
        "mark": {"type": "rect", "cursor": "pointer"},
        "encoding": {
            "x": _members(),
            "y": _axis("group", "name", title=None, labelLimit=limit, labelFontSize=10),
            "color": {
                "field": "ratio",
                "type": "quantitative",
                "scale": {"scheme": "cividis", "reverse": True, "domain": [0, 1]},
                "legend": {
                    "title": "Pruning ratio",
                    "titleColor": MUTED,
                    "titleFontWeight": "normal",
                    "orient": "top",
                    "gradientLength": 160,
                    "gradientThickness": 10,
                    "format": ".1f",
                    "tickCount": 3,
                },
            },
            "tooltip": [
                {"field": "name", "title": "group"},
                {"field": "peak", "title": "peak, MiB"},
                {"field": "ratio", "title": "pruning ratio", "format": ".2f"},
            ],
        },
    }


def _selected_column() -> Spec:
    return {
        "transform": [{"filter": "datum.id === selected && datum.group === 0"}],
        "mark": {"type": "rect", "filled": False, "stroke": ACCENT, "strokeWidth": 2.5},
        "encoding": {"x": _members(), "y": {"value": 0}, "y2": {"value": "height"}},
    }
