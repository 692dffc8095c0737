"""Dominance, hypervolume and knee of scored candidates.

`values` has shape (points, objectives), and `maximise` holds for each objective whether larger
is better. Every function rejects NaN and infinities: NaN compares as neither better nor worse and
would silently join any front.
"""

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

MAXIMISED_OBJECTIVES = frozenset({"accuracy"})
"""Names of the objectives to maximise. All others are minimised."""

_PLANE = 2


def maximised(objectives: Sequence[str]) -> tuple[bool, ...]:
    """Return for each named objective whether larger is better."""
    return tuple(objective in MAXIMISED_OBJECTIVES for objective in objectives)


def non_dominated(values: ArrayLike, *, maximise: Sequence[bool]) -> NDArray[np.bool_]:
    """Mark the points that no other point dominates.

    Equal points do not dominate each other, so either all of them are marked or none.

    Args:
        values: Points, shape (points, objectives). May be empty.
        maximise: For each objective, whether larger is better.

    Returns:
        Mask of the non-dominated points, shape (points,).

    Raises:
        ValueError: If a shape does not match or a value is not finite.
    """
    costs = _costs(values, maximise)
    mask: NDArray[np.bool_] = np.zeros(0, dtype=bool)
    if len(costs):  # moocore rejects an empty array
        mask = np.asarray(moocore.is_nondominated(costs, keep_weakly=True), dtype=bool)
    return mask


def hypervolume(values: ArrayLike, *, reference: ArrayLike, maximise: Sequence[bool]) -> float:
    """Return the volume that the points dominate, bounded by a reference point.

    Points that do not beat the reference in every objective contribute nothing. Computed by moocore
    (Guerreiro, Fonseca and Paquete, "The hypervolume indicator", ACM Computing Surveys 54, 2021).

    Args:
        values: Points, shape (points, objectives).
        reference: Reference point, shape (objectives,).
        maximise: For each objective, whether larger is better.

    Returns:
        The volume, in the product of the objectives' units.

    Raises:
        ValueError: If a shape does not match or a value is not finite.
    """
    costs = _costs(values, maximise)
    bound = _costs(np.asarray(reference)[np.newaxis], maximise)[0]
    counted = costs[np.all(costs < bound, axis=1)]
    if not len(counted):
        return 0.0
    return float(moocore.hypervolume(counted, ref=bound))


def hypervolume_history(
    values: ArrayLike, *, reference: ArrayLike, maximise: Sequence[bool]
) -> NDArray[np.float64]:
    """Return the hypervolume after each point, in the order of the rows.

    Args:
        values: Points in the order in which they were found, shape (points, objectives).
        reference: Reference point, shape (objectives,).
        maximise: For each objective, whether larger is better.

    Returns:
        Hypervolumes, shape (points,), non-decreasing.

    Raises:
        ValueError: If a shape does not match or a value is not finite.
    """
    costs = _costs(values, maximise)
    bound = _costs(np.asarray(reference)[np.newaxis], maximise)[0]
    smaller = (False,) * len(bound)
    history = np.zeros(len(costs))
    front = np.empty((0, len(bound)))
    volume = 0.0
    for index, point in enumerate(costs):
        if not np.any(np.all(front <= point, axis=1)):
            front = np.concatenate([front[~np.all(point <= front, axis=1)], point[np.newaxis]])
            # Another order of summation may round down. The maximum keeps the history monotonic.
            volume = max(volume, hypervolume(front, reference=bound, maximise=smaller))
        history[index] = volume
    return history


def knee(values: ArrayLike, *, maximise: Sequence[bool]) -> int | None:
    """Find the knee of a front of two objectives, beyond which each gain costs more.

    Both objectives are scaled to the front's own range. The knee is the point farthest below the
    straight line between the front's ends (Das, "On characterizing the 'knee' of the Pareto curve
    based on Normal-Boundary Intersection", Structural Optimization 18, 1999).

    Args:
        values: Points, shape (points, 2). Dominated points are ignored.
        maximise: For each objective, whether larger is better.

    Returns:
        Row of the knee, or None if no point lies below the line, as with fewer than three points.

    Raises:
        ValueError: If there are not two objectives, a shape does not match or a value is not
            finite.
    """
    costs = _costs(values, maximise)
    if costs.shape[1] != _PLANE:
        raise ValueError(f"a knee needs 2 objectives, got {costs.shape[1]}")
    rows = np.flatnonzero(non_dominated(values, maximise=maximise))
    if not len(rows):
        return None
    front = costs[rows]
    low, high = front.min(axis=0), front.max(axis=0)
    if np.any(low == high):
        return None
    # After scaling, the ends are (0, 1) and (1, 0). A point lies below the line if its sum is < 1.
    sums = ((front - low) / (high - low)).sum(axis=1)
    best = int(np.argmin(sums))
    return int(rows[best]) if sums[best] < 1 - 1e-9 else None


def _costs(values: ArrayLike, maximise: Sequence[bool]) -> NDArray[np.float64]:
    """Return the values as costs to minimise, shape (points, objectives), after validation."""
    costs = np.asarray(values, dtype=np.float64)
    if costs.size == 0:
        costs = costs.reshape(0, len(maximise))
    if costs.ndim != _PLANE or costs.shape[1] != len(maximise):
        raise ValueError(
            f"values of shape {costs.shape} don't fit {len(maximise)} objectives; "
            f"give one row a point and one column an objective"
        )
    if not np.all(np.isfinite(costs)):
        row, column = np.argwhere(~np.isfinite(costs))[0]
        raise ValueError(f"value {costs[row, column]} at row {row}, column {column} isn't finite")
    return np.where(np.asarray(maximise, dtype=bool), -costs, costs)
