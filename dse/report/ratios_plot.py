"""Where the front prunes: a heat map of pruning ratios by channel group."""

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from dse.measures import Measure
from dse.report import wording
from dse.report.selection import Shown, front_trials
from dse.report.style import (
    BLACK,
    CAPTION_POINTS,
    INCHES,
    POINTS_PER_INCH,
    SMALL_POINTS,
    Width,
    add_caption,
    new_figure,
    shorten,
    shorten_names,
    text_points,
)
from dse.report.wording import metric_title, mib
from dse.results.candidate_records import TrialRecord
from dse.results.records import RunRecords

_TALLEST_INCHES = 7.2
_ROW_INCHES = 0.105
_MARGINS_INCHES = 1.2
_LABEL_SHARE: dict[Width, float] = {"column": 0.36, "page": 0.3}
_PICKED = "★"  # the same as in the plot of the front
_NARROWEST_OUTLINED_POINTS = 7.0
_BAR_INCHES = 0.09
_COLUMN_LABEL_POINTS = 8.5
_RECIPE_POINTS = 110  # maximum width of the recipe below a column


@dataclass(frozen=True, kw_only=True)
class Room:
    """The space that a heat map's texts can take.

    Attributes:
        names_points: width of the names of rows.
        columns_points: approximate width of all columns.
        rows_points: height of all rows.
    """

    names_points: float
    columns_points: float
    rows_points: float


def ratios_figure(records: RunRecords, *, width: Width, picked: Shown | None) -> Figure | None:
    """Plot the pruning ratio of every channel group for every member of the front.

    Rows are groups in execution order; columns are members of the front by peak memory.

    Args:
        records: the run.
        width: width of a column or of the page.
        picked: the candidate whose column is marked.

    Returns:
        The figure; None if there is no front, or nothing to prune.
    """
    front = front_trials(records)
    if not front or not records.groups:
        return None
    rows_inches = rows_height_inches(records)
    longest = max(text_points(recipe, size=SMALL_POINTS) for recipe in _recipes(front))
    height_inches = rows_inches + _MARGINS_INCHES + longest / POINTS_PER_INCH
    figure = new_figure(width, height_inches=height_inches)
    points = INCHES[width] * POINTS_PER_INCH
    room = Room(
        names_points=points * _LABEL_SHARE[width],
        columns_points=points * (0.9 - _LABEL_SHARE[width]),
        rows_points=rows_inches * POINTS_PER_INCH,
    )
    draw_ratios(figure.add_subplot(), records, picked=picked, room=room)
    column = _column_of(front, picked)
    add_caption(
        figure,
        [
            *wording.origin(records),
            f"study seed {records.study.seed}",
            f"{len(records.groups)} channel groups in execution order (channels unpruned)",
            *([f"{_PICKED} {picked.label}"] if picked is not None and column is not None else []),
        ],
    )
    return figure


def rows_height_inches(records: RunRecords) -> float:
    """Return the height that the rows of the heat map should have."""
    return min(max(_ROW_INCHES * len(records.groups), 0.9), _TALLEST_INCHES)


def draw_ratios(axes: Axes, records: RunRecords, *, picked: Shown | None, room: Room) -> bool:
    """Draw the heat map and its colour bar into axes of any size.

    Args:
        axes: the axes; the colour bar takes a part of their width.
        records: the run.
        picked: the candidate whose column is marked.
        room: the space for texts.

    Returns:
        Whether there was anything to draw; if not, the axes are left as they are.
    """
    front = front_trials(records)
    if not front or not records.groups:
        return False
    image = axes.imshow(
        pruning_ratios(records, front),
        aspect="auto",
        interpolation="nearest",
        cmap="cividis_r",  # darker cells are pruned more
        vmin=0.0,
        vmax=1.0,
    )
    _label_rows(axes, records, room=room)
    column = _column_of(front, picked)
    _label_columns(axes, front, room=room, picked=column, measure=records.measure)
    if column is not None and room.columns_points / len(front) >= _NARROWEST_OUTLINED_POINTS:
        _outline(axes, column=column, rows=len(records.groups))
    aspect = room.rows_points / POINTS_PER_INCH / _BAR_INCHES
    bar = axes.figure.colorbar(image, ax=axes, location="right", aspect=aspect, pad=0.02)
    bar.set_label("Pruning ratio")
    bar.outline.set_linewidth(0.4)
    return True


def _column_of(front: tuple[TrialRecord, ...], picked: Shown | None) -> int | None:
    if picked is None:
        return None
    digests = [trial.candidate.digest for trial in front]
    digest = picked.candidate.digest
    return digests.index(digest) if digest in digests else None


def pruning_ratios(records: RunRecords, front: tuple[TrialRecord, ...]) -> NDArray[np.float64]:
    """Return the removed share of each group, (groups, members)."""
    return np.array(
        [
            [1 - trial.candidate.channels.get(name, channels) / channels for trial in front]
            for name, channels in records.groups
        ]
    )


def _label_rows(axes: Axes, records: RunRecords, *, room: Room) -> None:
    row_points = room.rows_points / len(records.groups)
    step = math.ceil((CAPTION_POINTS + 0.8) / row_points)
    rows = range(0, len(records.groups), step)
    counts = [f" ({records.groups[row][1]})" for row in rows]
    points = room.names_points - max(text_points(one, size=CAPTION_POINTS) for one in counts)
    names = shorten_names(
        [records.groups[row][0] for row in rows], points=points, size=CAPTION_POINTS
    )
    texts = [name + count for name, count in zip(names, counts, strict=True)]
    axes.set_yticks(list(rows), texts, fontsize=CAPTION_POINTS, parse_math=False)
    axes.tick_params(axis="y", length=1.5, pad=1.5)


def _recipes(front: tuple[TrialRecord, ...]) -> list[str]:
    """Return each member's differences from the study's recipe, shortened to fit below it."""
    texts = [wording.short_recipe(trial.candidate) for trial in front]
    return [shorten(text, points=_RECIPE_POINTS, size=SMALL_POINTS) for text in texts]


def _label_columns(
    axes: Axes,
    front: tuple[TrialRecord, ...],
    *,
    room: Room,
    picked: int | None,
    measure: Measure,
) -> None:
    """Write the metric above, peak memory and recipe below the columns: as many as have room."""
    recipes = _recipes(front)
    step = math.ceil(len(front) * _COLUMN_LABEL_POINTS / room.columns_points)
    columns = [
        column
        for column in range(0, len(front), step)
        if picked is None or column == picked or abs(column - picked) >= step
    ]
    columns = sorted({*columns, *([] if picked is None else [picked])})
    sizes = [mib(trial.peak_bytes) for trial in front]
    places = wording.decimals(sizes)
    below = [f"{sizes[column]:.{places}f}" for column in columns]
    above = [measure.number(front[column].accuracy or 0.0) for column in columns]
    if picked is not None:
        below[columns.index(picked)] = f"{_PICKED} {below[columns.index(picked)]}"
    below = [
        f"{recipes[column]}  {size}" if recipes[column] else size
        for column, size in zip(columns, below, strict=True)
    ]
    axes.set_xticks(columns, below, rotation=90, fontsize=SMALL_POINTS, parse_math=False)
    axes.set_xlabel(f"Peak memory (MiB){', and recipe' if any(recipes) else ''}")
    top = axes.secondary_xaxis("top")
    top.set_xticks(columns, above, rotation=90)
    top.set_xlabel(f"{metric_title(measure)}, short{measure.unit}")
    top.spines["top"].set_visible(False)
    axes.tick_params(axis="x", length=1.5, pad=1.5)
    top.tick_params(axis="x", length=1.5, pad=1.5)


def _outline(axes: Axes, *, column: int, rows: int) -> None:
    for colour, line_width in (("white", 1.8), (BLACK, 0.8)):
        axes.add_patch(
            Rectangle(
                (column - 0.5, -0.5),
                1,
                rows,
                fill=False,
                edgecolor=colour,
                linewidth=line_width,
                clip_on=False,
                zorder=4,
            )
        )
