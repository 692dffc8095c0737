"""Memory over one training step, stacked by category."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import CARETDOWN
from matplotlib.patches import Patch
from numpy.typing import NDArray

from dse.memory.timeline import Timeline
from dse.report import wording
from dse.report.style import (
    BLACK,
    CAPTION_POINTS,
    CATEGORY_STYLES,
    INCHES,
    LINE_SPACING,
    POINTS_PER_INCH,
    SMALL_POINTS,
    TEXT_POINTS,
    UNKNOWN_CATEGORY,
    CategoryStyle,
    Width,
    add_caption,
    broken,
    new_figure,
    shorten,
    text_points,
)
from dse.report.wording import mib

_PANEL_INCHES: dict[Width, float] = {"column": 1.6, "page": 1.9}
_FRAME_INCHES = 0.75
_LEGEND_COLUMNS: dict[Width, int] = {"column": 3, "page": 4}
_PANEL_SHARE: dict[Width, float] = {"column": 0.84, "page": 0.44}
_MOST_MOMENTS = 600  # more can't be distinguished in print
_HEADROOM = 1.14  # height of the axes relative to the highest peak, for the names of the phases
_LASTING = ("weights", "buffers", "optimizer_state")
SHORT_PHASES = {"forward": "fwd", "backward": "bwd", "optimizer": "opt"}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One network's training step.

    Attributes:
        label: title of the panel.
        timeline: bytes held at each moment.
        recipe: differences from the recipe in the caption; empty if there are none.
    """

    label: str
    timeline: Timeline
    recipe: str = ""


def memory_figure(
    panels: Sequence[Panel], *, caption: Sequence[str], width: Width, stacked: bool = False
) -> Figure:
    """Plot the memory of one or two networks throughout one step, on shared axes.

    Args:
        panels: one or two networks.
        caption: origin of the figures; lines break between its parts.
        width: width of a column (panels stacked) or of the page (side by side).
        stacked: whether panels are stacked on the page, too.
    """
    stacked = stacked or width == "column"
    rows, columns = (len(panels), 1) if stacked else (1, len(panels))
    height = _FRAME_INCHES + rows * _PANEL_INCHES[width]
    figure = new_figure(width, height_inches=height)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = [replace(one, timeline=step_alone(one.timeline)) for one in panels]
    highest = max(mib(totals(panel.timeline).max()) for panel in panels)
    longest = max(len(panel.timeline.bytes) for panel in panels)
    share = _PANEL_SHARE["column" if stacked or len(panels) == 1 else width]
    room = INCHES[width] * POINTS_PER_INCH * share
    for axes, panel in zip(grid.flat, panels, strict=True):
        _draw_stack(axes, panel.timeline)
        _mark_phases(axes, panel.timeline, longest=longest, room_points=room)
        _mark_peak(axes, panel, room_points=room)
    first = grid.flat[0]
    first.set_xlim(0, longest)
    first.set_ylim(0, highest * _HEADROOM)
    for axes in grid[-1, :]:
        axes.set_xlabel("Moment of the step (allocations and releases)")
    for axes in grid[:, 0]:
        axes.set_ylabel("Memory held (MiB)")
    add_caption(figure, [*caption, "predicted"])
    figure.legend(
        handles=[_patch(style) for style in _used_styles(panels)],
        loc="outside lower center",
        ncols=_LEGEND_COLUMNS[width],
        handleheight=1.1,
    )
    return figure


def step_alone(timeline: Timeline) -> Timeline:
    """Return the step without what a recording contains before and after it.

    Before the step, the network and the images are created one by one, without any operator. After
    it, tensors that persist between steps are released.
    """
    running = [moment for moment, operator in enumerate(timeline.operators) if operator]
    start = min(running, default=0)
    columns = [timeline.categories.index(name) for name in _LASTING if name in timeline.categories]
    lasting = timeline.bytes[start:, columns].sum(axis=1)
    gone = np.flatnonzero(np.diff(lasting) < 0)
    end = start + (int(gone[0]) + 1 if len(gone) else len(lasting))
    return Timeline(
        categories=timeline.categories,
        bytes=timeline.bytes[start:end],
        sites=timeline.sites[start:end],
        peak_index=int(timeline.bytes[start:end].sum(axis=1).argmax()),
    )


def thinned(held: NDArray[np.int64], *, most: int) -> NDArray[np.int64]:
    """Select moments to plot: the first and the highest of each interval, so that peaks remain.

    Args:
        held: bytes held, (moments,).
        most: approximate maximum number of moments.

    Returns:
        Their indices, ascending.
    """
    if len(held) <= most:
        return np.arange(len(held))
    edges = np.linspace(0, len(held), most // 2 + 1).astype(np.int64)
    highest = [start + int(np.argmax(held[start:end])) for start, end in pairwise(edges.tolist())]
    return np.unique([*edges[:-1], *highest, len(held) - 1])


def _draw_stack(axes: Axes, timeline: Timeline) -> None:
    kept = thinned(totals(timeline), most=_MOST_MOMENTS)
    floor = np.zeros(len(kept))
    for name, style in styles_of(timeline.categories):
        held = timeline.bytes[kept, timeline.categories.index(name)]
        if not held.any():
            continue
        top = floor + held / wording.BYTES_PER_MIB
        axes.fill_between(
            kept,
            floor,
            top,
            step="post",
            facecolor=style.colour,
            hatch=style.hatch,
            edgecolor=BLACK,
            linewidth=0.15,
        )
        floor = top
    axes.plot(kept, floor, drawstyle="steps-post", color=BLACK, linewidth=0.5)


def _mark_phases(axes: Axes, timeline: Timeline, *, longest: int, room_points: float) -> None:
    phases = timeline.phases
    starts = [0, *(i for i in range(1, len(phases)) if phases[i] != phases[i - 1]), len(phases)]
    for start, end in pairwise(starts):
        if start:
            axes.axvline(start, color=BLACK, linewidth=0.6, linestyle=(0, (1, 1.5)))
        name = phases[start]
        points = (end - start) / longest * room_points
        fitting = [
            text
            for text in (name, SHORT_PHASES.get(name, name))
            if text_points(text, size=SMALL_POINTS) <= points - 2
        ]
        if fitting:
            axes.annotate(
                fitting[0],
                ((start + end) / 2, 1.0),
                xycoords=axes.get_xaxis_transform(),
                xytext=(0, -1),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=SMALL_POINTS,
            )


def _mark_peak(axes: Axes, panel: Panel, *, room_points: float) -> None:
    timeline = panel.timeline
    index = timeline.peak_index
    peak = mib(totals(timeline)[index])
    axes.plot(
        [index + 0.5],
        [peak],
        marker=CARETDOWN,  # its tip is the point
        markersize=5,
        color=BLACK,
        zorder=5,
    )
    places = max(wording.decimals([peak]), 1)
    size = f"peak {peak:.{places}f} MiB"
    label_room = room_points - text_points(f": {size}", size=TEXT_POINTS)
    title = f"{shorten(panel.label, points=label_room, size=TEXT_POINTS)}: {size}"
    where = [timeline.phases[index], timeline.operators[index], timeline.modules[index]]
    place = shorten(
        "in " + ", ".join(part for part in where if part),
        points=room_points,
        size=CAPTION_POINTS,
    )
    lines = broken(panel.recipe.split(", "), between=", ", points=room_points)
    notes = [*(lines if panel.recipe else []), place]
    pad = 10 + (len(notes) - 1) * CAPTION_POINTS * LINE_SPACING
    axes.set_title(title, loc="left", pad=pad, parse_math=False)
    axes.annotate(
        "\n".join(notes),
        (0.0, 1.0),
        xycoords="axes fraction",
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=CAPTION_POINTS,
        parse_math=False,
    )


def totals(timeline: Timeline) -> NDArray[np.int64]:
    """Return all bytes held at each moment, (moments,)."""
    held: NDArray[np.int64] = timeline.bytes.sum(axis=1)
    return held


def styles_of(categories: Sequence[str]) -> list[tuple[str, CategoryStyle]]:
    """Return categories with their styles, from the bottom of the stack to the top."""
    known = [(name, style) for name, style in CATEGORY_STYLES.items() if name in categories]
    return known + [
        (
            name,
            CategoryStyle(
                label=name.replace("_", " "),
                colour=UNKNOWN_CATEGORY.colour,
                hatch=UNKNOWN_CATEGORY.hatch,
            ),
        )
        for name in categories
        if name not in CATEGORY_STYLES
    ]


def _used_styles(panels: Sequence[Panel]) -> list[CategoryStyle]:
    categories = panels[0].timeline.categories
    held = sum(panel.timeline.bytes.sum(axis=0) for panel in panels)
    used = {name for name, total in zip(categories, np.atleast_1d(held), strict=True) if total}
    return [style for name, style in styles_of(categories) if name in used]


def _patch(style: CategoryStyle) -> Patch:
    return Patch(
        facecolor=style.colour,
        hatch=style.hatch,
        edgecolor=BLACK,
        linewidth=0.3,
        label=style.label,
    )
