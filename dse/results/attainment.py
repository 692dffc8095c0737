"""Attainment surfaces of several runs, from their empirical attainment function.

A run attains every point that its front dominates or meets. The surface of 50 % is the border of
what at least half of the runs attain, a median over runs (Grunert da Fonseca, Fonseca and Hall,
"Inferential performance assessment of stochastic optimisers and the attainment function", EMO
2001). Computed by moocore.
"""

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray


def attainment_surface(
    fronts: Sequence[ArrayLike], *, percent: float, maximise: Sequence[bool]
) -> NDArray[np.float64]:
    """Return the corners of the surface that a share of the runs attains.

    Args:
        fronts: for each run its points, shape (points, objectives), at least one; dominated
            points change nothing.
        percent: share of the runs, from 0 (at least one run) to 100 (all of them).
        maximise: for each objective, whether larger is better.

    Returns:
        Non-dominated points, shape (corners, objectives), ascending in the first objective.

    Raises:
        ValueError: if there is no run, or a run without points.
    """
    arrays = [np.asarray(front, dtype=np.float64).reshape(-1, len(maximise)) for front in fronts]
    if not arrays or not all(map(len, arrays)):
        raise ValueError("an attainment surface needs runs with at least one point each")
    up = np.asarray(maximise, dtype=bool)
    points = np.concatenate(arrays)
    sets = np.repeat(np.arange(1, len(arrays) + 1), [len(array) for array in arrays])
    found = moocore.eaf(np.where(up, -points, points), sets, percentiles=[percent])
    corners = np.where(up, -found[:, : len(up)], found[:, : len(up)])
    return np.asarray(corners[np.argsort(corners[:, 0], kind="stable")])
