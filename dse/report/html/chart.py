"""Charts in Vega-Lite: what all of them share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dse.report.html.vega import Spec

Cell = str | int | float | None
Renderer = Literal["svg", "canvas"]

# Colours are names of the style sheet's variables, which the page replaces by the colours of the
# light or the dark scheme.
INK = "var(--ink)"
MUTED = "var(--muted)"
GRID = "var(--grid)"
PAPER = "var(--card)"
BLUE = "var(--blue)"
GREEN = "var(--green)"
VERMILLION = "var(--vermillion)"
GREY = "var(--grey)"
ACCENT = "var(--accent)"

CONFIG: Spec = {
    "background": None,
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "titleFontWeight": "normal",
        "titleFontSize": 12,
        "labelFontSize": 11,
        "domainColor": GRID,
        "tickColor": GRID,
        "gridColor": GRID,
        "titlePadding": 8,
    },
    "legend": {
        "labelColor": INK,
        "labelFontSize": 12,
        "labelLimit": 240,
        "title": None,
        "orient": "bottom",
        "symbolSize": 70,
        "columnPadding": 16,
        "rowPadding": 4,
        "columns": {"expr": "width < 430 ? 2 : 4"},
    },
}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A chart's data: rows of cells under names of columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def to_json(self) -> Spec:
        """Return the JSON object that the page's script reads."""
        return {"columns": list(self.columns), "rows": [list(row) for row in self.rows]}


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart of the page.

    Attributes:
        name: the page's element of this name holds it.
        description: what it shows, for readers who can't see it.
        spec: the chart in Vega-Lite, without data, size and `CONFIG`.
        height: height in pixels; the width is that of its element.
        data: data by the names that the chart uses.
        renderer: `canvas` for charts of very many marks.
    """

    name: str
    description: str
    spec: Spec
    height: int
    data: Mapping[str, Rows] = field(default_factory=dict)
    renderer: Renderer = "svg"

    @property
    def vega_lite(self) -> Spec:
        """The whole chart in Vega-Lite, without its data."""
        return {
            "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
            "description": self.description,
            "width": "container",
            "height": self.height,
            "autosize": {"type": "fit-x", "contains": "padding"},
            "config": CONFIG,
            **self.spec,
        }


def named(name: str) -> Spec:
    """Refer to data that the page's script sets."""
    return {"name": name}


def number(column: str, title: str | None = None, **axis: Any) -> Spec:
    """Return the encoding of a column of numbers."""
    return {"field": column, "type": "quantitative", "title": title, "axis": axis or {}}


def significant(value: float, *, digits: int = 5) -> float:
    """Round to some significant digits, since the page needs no more."""
    return float(f"{value:.{digits}g}")
