"""Scales of the axes that show memory and a metric."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from dse.measures import Measure

_WIDEST_LINEAR = 20  # beyond this ratio of largest to smallest, memory is drawn logarithmically


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The range of an axis of memory.

    Attributes:
        low: its start in MiB.
        high: its end in MiB.
        logarithmic: whether it is logarithmic.
    """

    low: float
    high: float
    logarithmic: bool


def memory_limits(sizes: Sequence[float]) -> Limits:
    """Fit an axis to sizes: linear from zero, or logarithmic if they differ much.

    Args:
        sizes: in MiB, at least one.
    """
    smallest, largest = float(min(sizes)), float(max(sizes))
    if largest > _WIDEST_LINEAR * smallest > 0:
        return Limits(low=smallest / 1.2, high=largest * 1.2, logarithmic=True)
    return Limits(low=0.0, high=largest * 1.06, logarithmic=False)


def score_limits(values: NDArray[np.float64], measure: Measure) -> tuple[float, float]:
    """Fit an axis to values of a metric, with room above and below; better is higher.

    Args:
        values: in the metric's own unit, (values,); the whole scale is shown if there are none.
        measure: the metric.
    """
    if not len(values):
        return measure.shown(0.0), measure.shown(1.0)
    low, high = float(values.min()), float(values.max())
    # A hundredth of the metric's range at least, which is 1 % of a share.
    room = max(high - low, measure.shown_spread(0.01))
    if measure.is_error:  # drawn downwards
        return high + 0.14 * room, low - 0.12 * room
    return low - 0.14 * room, high + 0.12 * room


def set_memory_scale(axes: Axes, limits: Limits) -> None:
    """Set the x-axis to a range of memory."""
    if limits.logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(limits.low, limits.high)


def set_score_scale(axes: Axes, values: NDArray[np.float64], measure: Measure) -> None:
    """Fit the y-axis to values of a metric (see `score_limits`)."""
    axes.set_ylim(*score_limits(values, measure))
