"""Words inside a picture: letters beside points, and names of vertical lines."""

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
_MARKER_POINTS = 2.8  # half the size of a marker
_SAME_PLACE_POINTS = 4.0
_HALF_LETTER = 3.6  # half the height of a letter's box, in points
_RADII_POINTS = (7.0, 8.5, 10.0, 13.0, 17.0, 22.0, 28.0, 36.0, 46.0)
_LEADER_FROM_POINTS = 12.0  # farther labels get a line to their point
_COVERED_COST = 4.0  # of a trial's marker under a label, in points of distance
_CROSSED_COST = 30.0


@dataclass(frozen=True, kw_only=True)
class Label:
    """A short word that belongs to a point, in data coordinates."""

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
) -> bool:
    """Write each label at the nearest free place around its point.

    Call it when limits and layout are final. Neighbouring points with the same word share one
    label. No label lies on a marker or another label; trials are covered where they crowd.

    Args:
        axes: the axes.
        labels: what to write.
        markers: in data coordinates, shape (markers, 2).
        trials: the small markers of single trials, in data coordinates, shape (trials, 2).
        stars: large markers, in data coordinates, shape (stars, 2).

    Returns:
        Whether there was room for all; the first without room ends it.
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
    dots = axes.transData.transform(trials.reshape(-1, 2)) / scale
    for label, place in _distinct(axes, labels):
        half = np.array([text_points(label.text, size=SMALL_POINTS) / 2 + 0.4, _HALF_LETTER])
        offsets = _offsets()
        boxes = np.hstack([place + offsets - half, place + offsets + half])
        free = np.all((boxes[:, :2] >= inside[:2]) & (boxes[:, 2:] <= inside[2:]), axis=1)
        free &= ~_overlaps(boxes, taken).any(axis=1)
        if not free.any():
            return False
        away = np.hypot(*offsets.T)
        cost = away + _COVERED_COST * _overlaps(boxes, np.hstack([dots, dots])).sum(axis=1)
        # A leader through another marker or label could be taken for that one's.
        far = away >= _LEADER_FROM_POINTS
        between = place + offsets[:, np.newaxis] * np.linspace(0.35, 0.75, 6)[:, np.newaxis]
        crossed = _overlaps(np.tile(between.reshape(-1, 2), 2), taken).any(axis=1)
        cost += _CROSSED_COST * (far & crossed.reshape(len(offsets), -1).any(axis=1))
        best = int(np.argmin(np.where(free, cost, np.inf)))
        _write(axes, label, offset=offsets[best], leader=bool(far[best]))
        taken = np.vstack([taken, boxes[best]])
    return True


def _distinct(axes: Axes, labels: Sequence[Label]) -> list[tuple[Label, NDArray[np.float64]]]:
    """Labels with their places in points, without those that a neighbour of the same word names."""
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
    """Places to try around a point, in points, shape (places, 2); the best directions first."""
    turns = np.linspace(0, 2 * np.pi, 16, endpoint=False) + np.pi / 4
    rings = [np.column_stack([np.cos(turns), np.sin(turns)]) * radius for radius in _RADII_POINTS]
    return np.concatenate(rings)


def _squares(places: NDArray[np.float64], *, half: float) -> NDArray[np.float64]:
    """What markers cover, in points: left, bottom, right, top; shape (markers, 4)."""
    return np.hstack([places - half, places + half])


def _overlaps(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each box overlaps each other box, shape (boxes, others)."""
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
    """Name vertical lines in a row above the axes, pushed apart where the lines stand close.

    Where even upright names don't fit, only every second, third, ... line is named. Call it when
    the limits are final; the layout then makes room.

    Args:
        axes: the axes.
        positions: in data coordinates, rising.
        texts: one for each position.

    Returns:
        How far the names reach above the axes, in points.
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
