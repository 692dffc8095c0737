"""The front: accuracy over peak memory, with short and full training in separate panels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dse.names import TrainedFidelity
from dse.report import wording
from dse.report.front_limits import (
    SizeAxis,
    drawable,
    final_spans,
    short_points,
    size_axis,
)
from dse.report.front_series import (
    Point,
    draw_finals,
    draw_picked,
    draw_search,
    point_labels,
    recipe_letters,
)
from dse.report.labels import label_lines, place_labels
from dse.report.legend import add_axes_legend, add_legend
from dse.report.scales import set_memory_scale, set_score_scale
from dse.report.selection import Shown
from dse.report.style import (
    BLACK,
    POINTS_PER_INCH,
    TEXT_POINTS,
    Width,
    add_caption,
    new_figure,
    shorten,
)
from dse.report.wording import mib
from dse.results.records import RunRecords

_PANEL_INCHES: dict[Width, float] = {"column": 1.55, "page": 2.1}
_FRAME_INCHES = 0.55  # axis labels and a panel's title
_GROWTHS = 4  # maximum number of panel heights tried until all letters fit
_GROWTH = 1.3


def front_figure(records: RunRecords, *, width: Width, picked: Shown | None) -> Figure | None:
    """Plot trials, front, baselines and budgets, and in a second panel the full trainings.

    The figure grows until every letter of the key stands clear of markers and other letters. At
    the largest size, a letter without room near its point stands farther off, with a line to it.

    Args:
        records: the run.
        width: width of a column (panels stacked) or of the page (side by side).
        picked: the candidate to highlight.

    Returns:
        The figure; None if there is nothing to plot yet.
    """
    if not drawable(records):
        return None
    panel_inches = _PANEL_INCHES[width]
    for growth in range(_GROWTHS):
        figure, clear = _drawn(
            records,
            width=width,
            picked=picked,
            panel_inches=panel_inches,
            crowd=growth == _GROWTHS - 1,
        )
        if clear:
            break
        panel_inches *= _GROWTH
    return figure


Panel = TrainedFidelity


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """A drawn panel.

    Attributes:
        axes: its axes.
        kind: fidelity of its figures.
        points: the points that may have letters.
        stars: the picked candidate's point, if it is among them.
        sizes: its axis of peak memory.
    """

    axes: Axes
    kind: Panel
    points: list[Point]
    stars: list[Point]
    sizes: SizeAxis


def draw_front(axes: Axes, records: RunRecords, *, kind: Panel, picked: Shown | None) -> bool:
    """Draw one panel of the front, with its legend below it, into axes of any size.

    Args:
        axes: the axes.
        records: the run.
        kind: `short` for the search and its baselines, `full` for what was trained in full.
        picked: the candidate to highlight.

    Returns:
        Whether there was anything to draw; if not, the axes are left as they are.
    """
    if not (records.finals if kind == "full" else drawable(records)):
        return False
    panel = _draw_panel(axes, records, kind=kind, picked=picked)
    key = recipe_letters([panel.points])
    add_axes_legend(axes, [(letter, text) for text, letter in key.items()])
    figure = axes.get_figure(root=True)
    if figure is not None:
        figure.draw_without_rendering()
        _name_panel(panel, records, with_budgets=True)
        figure.draw_without_rendering()
    _write_letters(panel, records, key, crowd=True)
    return True


def _draw_panel(axes: Axes, records: RunRecords, *, kind: Panel, picked: Shown | None) -> _Drawn:
    """Draw everything but title, legend and letters, which need the final layout."""
    sizes = size_axis(records)
    _set_sizes(axes, sizes)
    points = draw_search(axes, records) if kind == "short" else draw_finals(axes, records)
    heights = short_points(records)[:, 1] if kind == "short" else final_spans(records)
    set_score_scale(axes, heights, records.measure)
    stars = draw_picked(axes, points, picked)
    axes.set_xlabel("Peak memory of one training step (MiB)")
    axes.set_ylabel(f"{wording.metric_title(records.measure)}{records.measure.unit}")
    axes.grid(visible=True)
    return _Drawn(axes=axes, kind=kind, points=points, stars=stars, sizes=sizes)


def _write_letters(panel: _Drawn, records: RunRecords, key: dict[str, str], *, crowd: bool) -> bool:
    """Write a panel's letters when its layout is final; return whether all had room."""
    trials = short_points(records)[: len(records.complete)]
    return place_labels(
        panel.axes,
        point_labels(panel.points, key),
        markers=_places(panel.points),
        trials=trials if panel.kind == "short" else np.empty((0, 2)),
        stars=_places(panel.stars),
        crowd=crowd,
    )


def _drawn(
    records: RunRecords, *, width: Width, picked: Shown | None, panel_inches: float, crowd: bool
) -> tuple[Figure, bool]:
    """Draw the figure with panels of a given height; return whether all letters had room.

    With `crowd`, letters without room are written too, farther from their points.
    """
    kinds: list[Panel] = ["short", "full"] if records.finals else ["short"]
    rows, columns = (len(kinds), 1) if width == "column" else (1, len(kinds))
    figure = new_figure(width, height_inches=rows * (panel_inches + _FRAME_INCHES))
    places = list(figure.subplots(rows, columns, sharex=True, squeeze=False).flat)
    panels = [
        _draw_panel(axes, records, kind=kind, picked=picked)
        for axes, kind in zip(places, kinds, strict=True)
    ]
    for axes in places[:-columns]:
        axes.set_xlabel("")
    key = recipe_letters([panel.points for panel in panels])
    add_caption(figure, _caption(records, panels[0].sizes.beyond))
    add_legend(figure, [(letter, text) for text, letter in key.items()])
    figure.draw_without_rendering()
    for panel in panels:
        _name_panel(panel, records, with_budgets=width == "page" or panel is panels[0])
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # nothing may move once the letters are placed
    clear = [_write_letters(panel, records, key, crowd=crowd) for panel in panels]
    return figure, all(clear)


def _places(points: Sequence[Point]) -> NDArray[np.float64]:
    return np.array([(point.x, point.y) for point in points]).reshape(-1, 2)


def _name_panel(panel: _Drawn, records: RunRecords, *, with_budgets: bool) -> None:
    """Set a panel's title, leaving room below it for the names of the budgets if wanted."""
    axes = panel.axes
    budgets = panel.sizes.budgets if with_budgets else ()
    height = label_lines(axes, [mib(one) for one in budgets], [*map(wording.size_label, budgets)])
    room = axes.get_window_extent().width / axes.figure.dpi * POINTS_PER_INCH
    text = shorten(panel_title(records, panel.kind), points=room, size=TEXT_POINTS)
    axes.set_title(text, loc="left", pad=4 + height)


def panel_title(records: RunRecords, kind: Panel) -> str:
    """Return the title of a panel: fidelity, length of training, and part of the data."""
    proxy = records.study.proxy
    if kind == "short":
        return f"Search: short training ({wording.epochs(proxy.short_epochs)}), selection part"
    return f"The best, trained in full ({wording.epochs(proxy.full_epochs)}), validation part"


def _set_sizes(axes: Axes, sizes: SizeAxis) -> None:
    """Set the axis of peak memory, and draw its budgets as vertical lines."""
    set_memory_scale(axes, sizes.limits)
    for budget in sizes.budgets:
        axes.axvline(mib(budget), color=BLACK, linewidth=0.6, linestyle=(0, (1, 1.5)), zorder=1)


def _caption(records: RunRecords, beyond: Sequence[int]) -> list[str]:
    parts = [*wording.origin(records), f"study seed {records.study.seed}"]
    if records.finals:
        seeds = wording.final_seeds(records)
        parts.append("the panels differ in length of training and in images")
        parts.append(seeds if seeds == "1 seed" else f"bars: \N{PLUS-MINUS SIGN} s.d. of {seeds}")
    if beyond:
        parts.append(f"budgets beyond: {', '.join(wording.size_label(one) for one in beyond)}")
    return parts
