"""Scales of the axes that show memory and a metric."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

_WIDEST_LINEAR = 20  # beyond this ratio of largest to smallest, memory is drawn logarithmically


def set_memory_scale(axes: Axes, sizes: Sequence[float]) -> None:
    """Fit the x-axis to sizes: linear from zero, or logarithmic if they differ much.

    Args:
        axes: the axes.
        sizes: in MiB, at least one.
    """
    smallest, largest = float(min(sizes)), float(max(sizes))
    if largest > _WIDEST_LINEAR * smallest > 0:
        axes.set_xscale("log")
        axes.set_xlim(smallest / 1.2, largest * 1.2)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, largest * 1.06)


def set_score_scale(axes: Axes, values: NDArray[np.float64]) -> None:
    """Fit the y-axis to scores in percent, with room above and below.

    Args:
        axes: the axes.
        values: scores, (values,); the whole scale is shown if there are none.
    """
    if not len(values):
        axes.set_ylim(0, 100)
        return
    low, high = float(values.min()), float(values.max())
    room = max(high - low, 1.0)
    axes.set_ylim(low - 0.14 * room, high + 0.12 * room)
