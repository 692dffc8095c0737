"""Words inside a picture, placed so that none lies on another, on a marker or across the edge."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from dse.report.style import POINTS_PER_INCH, SMALL_POINTS, text_points

_DIRECTIONS = ((1, -1), (1, 0), (0, -1), (0, 1), (-1, 1), (-1, 0), (1, 1), (-1, -1))
_DISTANCES_POINTS = (4.0, 6.0, 9.0, 13.0, 18.0)
_LEADER_FROM_POINTS = 9.0  # farther labels get a line to their point
_MARKER_POINTS = 2.2
_GAP_POINTS = 5.0
_LINE_HEIGHT = 1.2  # of the type's size: letters reach above and below it
_LEADER_POINTS = 8.0
_LEADER: dict[str, Any] = {"arrowstyle": "-", "linewidth": 0.4}


@dataclass(frozen=True, kw_only=True)
class Label:
    """A word that belongs to a point, in data coordinates.

    Attributes:
        text: the word.
        x: of the point.
        y: of the point.
        weight: of the type.
        clearance: half the size of the point's own mark, where it is a large one, in points.
    """

    text: str
    x: float
    y: float
    weight: str = "normal"
    clearance: float = 0.0


def place_labels(
    axes: Axes,
    labels: Sequence[Label],
    *,
    markers: NDArray[np.float64],
    lines: NDArray[np.float64],
    size: float = SMALL_POINTS,
) -> list[Label]:
    """Write each label beside its point: never on a marker or a word, off the lines if it can be.

    Call it when limits and layout are final. The first labels choose first.

    Args:
        axes: the axes.
        labels: what to write, most important first.
        markers: in data coordinates, shape (markers, 2).
        lines: points along the lines, in data coordinates, shape (points, 2).
        size: of the type, in points.

    Returns:
        Those for which there was no room; they aren't written.
    """
    scale = _figure(axes).dpi / POINTS_PER_INCH
    inside = axes.get_window_extent()
    marker_pixels = axes.transData.transform(markers.reshape(-1, 2))
    line_pixels = axes.transData.transform(lines.reshape(-1, 2))
    taken: list[Bbox] = []
    left_out = []
    for label in labels:
        centre = axes.transData.transform((label.x, label.y))
        width = text_points(label.text, size=size, weight=label.weight) * scale
        height = _LINE_HEIGHT * size * scale
        best: tuple[float, float, float, Bbox] | None = None
        for dx, dy in _offsets(label.clearance):
            box = _box(centre, width=width, height=height, dx=dx, dy=dy, scale=scale)
            if (
                not _contains(inside, box)
                or any(box.overlaps(other) for other in taken)
                or _covered(marker_pixels, box, margin=_MARKER_POINTS * scale)
            ):
                continue
            # A few points of line under a word cost as much as standing some points farther off.
            cost = max(abs(dx), abs(dy)) + 2.0 * min(_covered(line_pixels, box, margin=0), 5)
            if best is None or cost < best[0]:
                best = (cost, dx, dy, box)
        if best is None:
            left_out.append(label)
        else:
            _write(axes, label, dx=best[1], dy=best[2], size=size)
            taken.append(best[3])
    return left_out


def label_lines(axes: Axes, positions: Sequence[float], texts: Sequence[str]) -> None:
    """Name vertical lines in a row above the axes, pushed apart where the lines stand close.

    Where even upright names don't fit, only every second, third, ... line is named. Call it when
    the limits are final; the layout then makes room.

    Args:
        axes: the axes.
        positions: in data coordinates, rising.
        texts: one for each position.
    """
    if not texts:
        return
    scale = _figure(axes).dpi / POINTS_PER_INCH
    inside = axes.get_window_extent()
    centres = axes.transData.transform([(position, 0.0) for position in positions])[:, 0] / scale
    widths = np.array([text_points(text, size=SMALL_POINTS) + _GAP_POINTS for text in texts])
    upright = widths.sum() > inside.width / scale
    if upright:
        widths = np.full(len(texts), SMALL_POINTS + 2)
    step = math.ceil(widths.sum() / (inside.width / scale))
    texts, positions = texts[::step], positions[::step]
    centres, widths = centres[::step], widths[::step]
    places = spread(centres, widths=widths, low=inside.x0 / scale, high=inside.x1 / scale)
    for text, position, centre, place in zip(texts, positions, centres, places, strict=True):
        moved = float(place - centre)
        axes.annotate(
            text,
            (position, 1.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(moved, 2.0 if np.allclose(places, centres) else _LEADER_POINTS),
            textcoords="offset points",
            ha="center",
            va="bottom",
            rotation=90 if upright else 0,
            fontsize=SMALL_POINTS,
            arrowprops=_LEADER | {"shrinkA": 0, "shrinkB": 0, "relpos": (0.5, 0.0)},
        )


def spread(
    centres: NDArray[np.float64], *, widths: NDArray[np.float64], low: float, high: float
) -> NDArray[np.float64]:
    """Move things on a line as little as possible (in squares) so that none overlaps another.

    Args:
        centres: where they want to be, rising, shape (things,).
        widths: shape (things,).
        low: where the line begins; nothing reaches below it.
        high: where the line ends; nothing reaches above it, unless there is too little room.

    Returns:
        Their centres, shape (things,).
    """
    # Take each one's least distance from the first off, and what remains must only rise: isotonic
    # regression, by pooling neighbours that fall.
    apart = np.concatenate([[0.0], np.cumsum((widths[:-1] + widths[1:]) / 2)])
    pools: list[list[float]] = []
    for wish in centres - apart:
        pools.append([float(wish)])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    risen = np.concatenate([np.full(len(pool), np.mean(pool)) for pool in pools])
    highest = high - widths[-1] / 2 - apart[-1]
    lowest = low + widths[0] / 2
    return np.asarray(np.maximum(np.minimum(risen, highest), lowest) + apart)


def _figure(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    if figure is None:
        raise ValueError("the axes belong to no figure; add them to one first")
    return figure


def _offsets(clearance: float) -> list[tuple[float, float]]:
    distances = [max(far, clearance + far / 4) for far in _DISTANCES_POINTS]
    return [(dx * far, dy * far) for far in distances for dx, dy in _DIRECTIONS]


def _box(
    centre: NDArray[np.float64],
    *,
    width: float,
    height: float,
    dx: float,
    dy: float,
    scale: float,
) -> Bbox:
    """Where a text lands whose nearest edge or corner stands off its point by (dx, dy) points."""
    left = centre[0] + dx * scale + (np.sign(dx) - 1) / 2 * width
    bottom = centre[1] + dy * scale + (np.sign(dy) - 1) / 2 * height
    return Bbox.from_bounds(left, bottom, width, height)


def _contains(outer: Bbox, box: Bbox) -> bool:
    return bool(
        box.x0 >= outer.x0 and box.x1 <= outer.x1 and box.y0 >= outer.y0 and box.y1 <= outer.y1
    )


def _covered(points: NDArray[np.float64], box: Bbox, *, margin: float) -> int:
    """How many of the points lie in the box or nearer to it than the margin."""
    within = (
        (points[:, 0] >= box.x0 - margin)
        & (points[:, 0] <= box.x1 + margin)
        & (points[:, 1] >= box.y0 - margin)
        & (points[:, 1] <= box.y1 + margin)
    )
    return int(within.sum())


def _write(axes: Axes, label: Label, *, dx: float, dy: float, size: float) -> None:
    far = max(abs(dx), abs(dy)) >= _LEADER_FROM_POINTS
    text = axes.annotate(
        label.text,
        (label.x, label.y),
        xytext=(dx, dy),
        textcoords="offset points",
        ha=("right", "center", "left")[int(np.sign(dx)) + 1],
        va=("top", "center", "bottom")[int(np.sign(dy)) + 1],
        fontsize=size,
        fontweight=label.weight,
        parse_math=False,
        arrowprops=_LEADER | {"shrinkA": 0.5, "shrinkB": 2.5} if far else None,
        zorder=10,
    )
    text.set_path_effects([withStroke(linewidth=1.2, foreground="white")])
