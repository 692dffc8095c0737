"""Text inside a figure: letters beside points, and names of vertical lines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from dse.report.style import POINTS_PER_INCH, SMALL_POINTS, text_points

_GAP_POINTS = 5.0
_LEADER_POINTS = 8.0
_LEADER: dict[str, Any] = {"arrowstyle": "-", "linewidth": 0.4}
STAR_POINTS = 11.0
_MARKER_POINTS = 3.3  # half the size of a marker
_SAME_PLACE_POINTS = 4.0  # points with the same text that are closer share one label
_HALF_LETTER = 3.6  # half the height of a letter's box, in points
_RADII_POINTS = (7.0, 8.5, 10.0, 13.0, 17.0, 22.0, 28.0, 36.0, 46.0)
_LEADER_FROM_POINTS = 12.0  # farther labels get a line to their point
_GRID_POINTS = 3.0  # between places far from the point that are tried
_COVERED_COST = 4.0  # of a trial's marker under a label, in points of distance
_CROSSED_COST = 30.0


@dataclass(frozen=True, kw_only=True)
class Label:
    """A short text for a point, whose position is in data coordinates."""

    text: str
    x: float
    y: float


def place_labels(
    axes: Axes,
    labels: Sequence[Label],
    *,
    markers: NDArray[np.float64],
    trials: NDArray[np.float64],
    stars: NDArray[np.float64],
    crowd: bool = False,
) -> bool:
    """Write each label at the nearest free place around its point.

    Call this when axis limits and layout are final. Neighbouring points with the same text share
    one label. A label that has room covers no marker and no other label, and covers trials only
    where they are dense.

    Args:
        axes: the axes.
        labels: what to write.
        markers: in data coordinates, shape (markers, 2).
        trials: the small markers of single trials, in data coordinates, shape (trials, 2).
        stars: large markers, in data coordinates, shape (stars, 2).
        crowd: whether to write labels that have no room around their points as well: each where it
            covers the fewest markers and labels in the axes, with a line to its point.

    Returns:
        Whether every label had room. Without `crowd`, nothing is written after the first that
        has none.
    """
    scale = _figure(axes).dpi / POINTS_PER_INCH
    edges = axes.get_window_extent()
    inside = np.array([edges.x0, edges.y0, edges.x1, edges.y1]) / scale
    taken = np.vstack(
        [
            _squares(axes.transData.transform(places.reshape(-1, 2)) / scale, half=half)
            for places, half in ((markers, _MARKER_POINTS), (stars, STAR_POINTS / 2))
        ]
    )
    roomy = True
    dots = axes.transData.transform(trials.reshape(-1, 2)) / scale
    for label, place in _distinct(axes, labels):
        half = np.array([text_points(label.text, size=SMALL_POINTS) / 2 + 0.4, _HALF_LETTER])
        offsets = _offsets()
        boxes = np.hstack([place + offsets - half, place + offsets + half])
        free = np.all((boxes[:, :2] >= inside[:2]) & (boxes[:, 2:] <= inside[2:]), axis=1)
        free &= ~_overlaps(boxes, taken).any(axis=1)
        if not free.any():
            if not crowd:
                return False
            roomy = False
            offset = _far_offset(place, half=half, inside=inside, taken=taken)
            _write(axes, label, offset=offset, leader=True)
            taken = np.vstack([taken, np.hstack([place + offset - half, place + offset + half])])
            continue
        away = np.hypot(*offsets.T)
        cost = away + _COVERED_COST * _overlaps(boxes, np.hstack([dots, dots])).sum(axis=1)
        # A leader that crosses another marker or label would seem to belong to it.
        far = away >= _LEADER_FROM_POINTS
        between = place + offsets[:, np.newaxis] * np.linspace(0.35, 0.75, 6)[:, np.newaxis]
        crossed = _overlaps(np.tile(between.reshape(-1, 2), 2), taken).any(axis=1)
        cost += _CROSSED_COST * (far & crossed.reshape(len(offsets), -1).any(axis=1))
        best = int(np.argmin(np.where(free, cost, np.inf)))
        _write(axes, label, offset=offsets[best], leader=bool(far[best]))
        taken = np.vstack([taken, boxes[best]])
    return roomy


def _far_offset(
    place: NDArray[np.float64],
    *,
    half: NDArray[np.float64],
    inside: NDArray[np.float64],
    taken: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Find the place in the axes where a label covers least; of several, the nearest.

    Args:
        place: of the point, in points, shape (2,).
        half: half the label's width and height.
        inside: the axes' left, bottom, right and top.
        taken: boxes of markers and labels, shape (boxes, 4).

    Returns:
        From the point to the label's centre, in points, shape (2,).
    """
    columns, rows = (
        np.arange(inside[side] + half[side], inside[side + 2] - half[side], _GRID_POINTS)
        for side in (0, 1)
    )
    centres = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    centres = np.vstack([centres, place[np.newaxis]]) if not len(centres) else centres
    covered = _overlaps(np.hstack([centres - half, centres + half]), taken).sum(axis=1)
    best = np.lexsort((np.hypot(*(centres - place).T), covered))[0]
    return np.asarray(centres[best] - place)


def _distinct(axes: Axes, labels: Sequence[Label]) -> list[tuple[Label, NDArray[np.float64]]]:
    """Return labels with their positions in points, without repeats of a neighbour's text."""
    scale = _figure(axes).dpi / POINTS_PER_INCH
    kept: list[tuple[Label, NDArray[np.float64]]] = []
    for label in labels:
        place = np.asarray(axes.transData.transform((label.x, label.y))) / scale
        if not any(
            label.text == other.text and np.hypot(*(place - there)) < _SAME_PLACE_POINTS
            for other, there in kept
        ):
            kept.append((label, place))
    return kept


def _offsets() -> NDArray[np.float64]:
    """Return candidate positions around a point in points, (places, 2), best direction first."""
    turns = np.linspace(0, 2 * np.pi, 16, endpoint=False) + np.pi / 4
    rings = [np.column_stack([np.cos(turns), np.sin(turns)]) * radius for radius in _RADII_POINTS]
    return np.concatenate(rings)


def _squares(places: NDArray[np.float64], *, half: float) -> NDArray[np.float64]:
    """Return the boxes of markers in points: left, bottom, right, top; (markers, 4)."""
    return np.hstack([places - half, places + half])


def _overlaps(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether each box overlaps each other box, (boxes, others)."""
    ours, theirs = boxes[:, np.newaxis], others[np.newaxis]
    apart = (ours[..., :2] > theirs[..., 2:]) | (ours[..., 2:] < theirs[..., :2])
    return np.asarray(~apart.any(axis=2))


def _write(axes: Axes, label: Label, *, offset: NDArray[np.float64], leader: bool) -> None:
    text = axes.annotate(
        label.text,
        (label.x, label.y),
        xytext=(float(offset[0]), float(offset[1])),
        textcoords="offset points",
        ha="center",
        va="center_baseline",
        fontsize=SMALL_POINTS,
        arrowprops=_LEADER | {"shrinkA": 0.5, "shrinkB": 2.5} if leader else None,
        zorder=10,
    )
    text.set_path_effects([withStroke(linewidth=1.2, foreground="white")])


def label_lines(axes: Axes, positions: Sequence[float], texts: Sequence[str]) -> float:
    """Name vertical lines in a row above the axes, moving names apart where lines are close.

    If even upright names don't fit, only every second, third, ... line is named. Call this when the
    limits are final; the layout then leaves room.

    Args:
        axes: the axes.
        positions: positions of the lines in data coordinates, ascending.
        texts: one name per position.

    Returns:
        Height of the names above the axes in points.
    """
    if not texts:
        return 0.0
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
    height = (
        max(text_points(text, size=SMALL_POINTS) for text in texts) if upright else SMALL_POINTS
    )
    return height + (_GAP_POINTS if np.allclose(places, centres) else _LEADER_POINTS + 3)


def spread(
    centres: NDArray[np.float64], *, widths: NDArray[np.float64], low: float, high: float
) -> NDArray[np.float64]:
    """Move intervals on a line by the least squared distance so that none overlap.

    Args:
        centres: desired centres, ascending, (things,).
        widths: widths, (things,).
        low: lower end of the line; nothing extends below it.
        high: upper end of the line; nothing extends above it unless there is too little room.

    Returns:
        The new centres, (things,).
    """
    # Without the minimum distances, centres only have to be non-decreasing. That is isotonic
    # regression, solved by pooling adjacent violators: neighbours out of order share their mean.
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
