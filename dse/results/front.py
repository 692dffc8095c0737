"""Dominance, hypervolume and knee: what makes a set of scored candidates a front.

Points are rows, objectives columns: `values` has shape (points, objectives), and `maximise` says
for each objective whether more is better. Every function refuses NaN and infinities, which compare
as neither better nor worse and would quietly join any front.
"""

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

MAXIMISED_OBJECTIVES = frozenset({"accuracy"})
"""Names of the objectives that are made large; all others are made small."""

_PLANE = 2


def maximised(objectives: Sequence[str]) -> tuple[bool, ...]:
    """Say for each named objective whether more of it is better."""
    return tuple(objective in MAXIMISED_OBJECTIVES for objective in objectives)


def dominates(first: ArrayLike, second: ArrayLike, *, maximise: Sequence[bool]) -> bool:
    """Say whether the first point is nowhere worse than the second, and somewhere better.

    Args:
        first: shape (objectives,).
        second: shape (objectives,).
        maximise: for each objective, whether more is better.

    Raises:
        ValueError: if a shape doesn't fit or a value isn't finite.
    """
    a, b = _costs(np.stack([np.asarray(first), np.asarray(second)]), maximise)
    return bool(np.all(a <= b) and np.any(a < b))


def non_dominated(values: ArrayLike, *, maximise: Sequence[bool]) -> NDArray[np.bool_]:
    """Mark the points that no other point dominates.

    Equal points don't dominate each other: all of them are marked, or none.

    Args:
        values: shape (points, objectives); no points are no error.
        maximise: for each objective, whether more is better.

    Returns:
        Shape (points,).

    Raises:
        ValueError: if a shape doesn't fit or a value isn't finite.
    """
    costs = _costs(values, maximise)
    mask: NDArray[np.bool_] = np.zeros(0, dtype=bool)
    if len(costs):  # moocore refuses an empty table
        mask = np.asarray(moocore.is_nondominated(costs, keep_weakly=True), dtype=bool)
    return mask


def hypervolume(values: ArrayLike, *, reference: ArrayLike, maximise: Sequence[bool]) -> float:
    """Measure what the points dominate together, up to a reference point.

    Points that don't beat the reference in every objective add nothing. Computed by moocore
    (Guerreiro, Fonseca and Paquete, "The hypervolume indicator", ACM Computing Surveys 54, 2021).

    Args:
        values: shape (points, objectives).
        reference: shape (objectives,).
        maximise: for each objective, whether more is better.

    Returns:
        The volume, in the product of the objectives' units.

    Raises:
        ValueError: if a shape doesn't fit or a value isn't finite.
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
    """Measure the hypervolume after each point, in the order of the rows.

    Args:
        values: shape (points, objectives), in the order they were found.
        reference: shape (objectives,).
        maximise: for each objective, whether more is better.

    Returns:
        Shape (points,), never falling.

    Raises:
        ValueError: if a shape doesn't fit or a value isn't finite.
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
            # Summing in another order may round differently: the maximum keeps it from falling.
            volume = max(volume, hypervolume(front, reference=bound, maximise=smaller))
        history[index] = volume
    return history


def knee(values: ArrayLike, *, maximise: Sequence[bool]) -> int | None:
    """Find where a front of two objectives bends most: beyond it each gain costs more.

    Both objectives are scaled to the front's own range; the knee is the member farthest below the
    straight line between the front's two ends (Das, "On characterizing the 'knee' of the Pareto
    curve based on Normal-Boundary Intersection", Structural Optimization 18, 1999).

    Args:
        values: shape (points, 2); dominated points are left out.
        maximise: for each objective, whether more is better.

    Returns:
        The row of the knee; None if no member lies below the line, as with fewer than three.

    Raises:
        ValueError: if there aren't two objectives, a shape doesn't fit or a value isn't finite.
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
    # The ends are (0, 1) and (1, 0) after scaling: a point is below the line where its sum is < 1.
    sums = ((front - low) / (high - low)).sum(axis=1)
    best = int(np.argmin(sums))
    return int(rows[best]) if sums[best] < 1 - 1e-9 else None


def _costs(values: ArrayLike, maximise: Sequence[bool]) -> NDArray[np.float64]:
    """Return the values with every objective to be made small, shape (points, objectives)."""
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
