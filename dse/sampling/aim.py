"""Aim: spread target peaks over the range of memory, and scale candidates to just below them."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dse.sampling.relax import Counts, Peaks

# The inverse of the golden ratio: the fractional parts of its multiples fill the unit interval
# evenly for any number of points (Knuth, The Art of Computer Programming 3, section 6.4).
_GOLDEN = (math.sqrt(5) - 1) / 2

_MARGIN = 1e-9  # relative tolerance of a scaling factor
# Bisection determines the factor to about eight digits, which separates any two counts of a ladder.
_HALVINGS = 30


def targets(*, smallest_bytes: int, largest_bytes: int, budgets: Sequence[int]) -> tuple[int, ...]:
    """Return the first targets: both ends of the range, and every budget between them.

    Args:
        smallest_bytes: Peak of the smallest network of the space.
        largest_bytes: Upper end of the range: the largest budget, or the peak of the widest
            network if there is no budget.
        budgets: Budgets in bytes.

    Returns:
        Targets in bytes, largest first.
    """
    between = {budget for budget in budgets if smallest_bytes < budget < largest_bytes}
    return tuple(sorted({smallest_bytes, largest_bytes} | between, reverse=True))


def target(
    draw: int,
    *,
    smallest_bytes: int,
    largest_bytes: int,
    budgets: Sequence[int],
    lowest_bytes: int | None = None,
    seed: int = 0,
) -> int:
    """Return the target of one draw.

    The first draws get the values of `targets`. Later draws fill the range evenly in log bytes:
    each falls into one of the widest gaps left, and no target repeats. The target depends only on
    the draw's number, so a resumed run aims as the uninterrupted run would have.

    Args:
        draw: Number of draws made before this one.
        smallest_bytes: See `targets`.
        largest_bytes: See `targets`.
        budgets: See `targets`.
        lowest_bytes: Lower end of the range that later draws fill. Defaults to `smallest_bytes`.
        seed: Shifts the sequence of targets.

    Returns:
        The target in bytes.
    """
    first = targets(smallest_bytes=smallest_bytes, largest_bytes=largest_bytes, budgets=budgets)
    if draw < len(first):
        return first[draw]
    share = ((draw - len(first) + 1) * _GOLDEN + seed * math.sqrt(2)) % 1.0
    lowest = smallest_bytes if lowest_bytes is None else lowest_bytes
    low, high = math.log(lowest), math.log(largest_bytes)
    return min(largest_bytes, max(lowest, int(math.exp(low + share * (high - low)))))


def scale(
    shares: Sequence[float],
    *,
    ladders: Sequence[Sequence[int]],
    peaks: Peaks,
    target_bytes: int,
) -> tuple[int, ...]:
    """Scale all groups by a common factor, so that the peak comes just below a target.

    The factor shifts all groups equally in log channels, and each is clipped to its ladder. As the
    factor grows, the result moves from the smallest network of the space to the widest.

    Args:
        shares: Direction of scaling: the kept share of each group's channels, shape (groups,),
            above 0.
        ladders: For each group, the channel counts that it may keep, in ascending order.
        peaks: Maps candidates to their peak bytes.
        target_bytes: Upper limit of the result's peak.

    Returns:
        Channels of each group for the largest factor whose peak does not exceed the target, or the
        smallest network if even its peak exceeds the target.
    """
    targets_bytes = np.array([target_bytes])
    (kept,) = scale_all(
        np.array([shares]), ladders=ladders, peaks=peaks, targets_bytes=targets_bytes
    )
    return tuple(int(count) for count in kept)


def scale_all(
    shares: NDArray[np.float64],
    *,
    ladders: Sequence[Sequence[int]],
    peaks: Peaks,
    targets_bytes: NDArray[np.int64],
) -> Counts:
    """Scale many directions at once, each to its own target. See `scale`.

    Args:
        shares: Kept shares, shape (n, groups), above 0.
        ladders: For each group, the channel counts that it may keep, in ascending order.
        peaks: Maps candidates to their peak bytes.
        targets_bytes: Upper limit of each result's peak, shape (n,).

    Returns:
        Channels, shape (n, groups).
    """
    rounded = _rounding(tuple(map(tuple, ladders)))
    bottom = np.array([ladder[0] for ladder in ladders], dtype=np.int64)
    top = np.array([ladder[-1] for ladder in ladders], dtype=np.int64)
    wanted = np.log(shares) + np.log(top)
    # Bracket the log factor: at `low` every group has its fewest channels, at `high` its most.
    low = (np.log(bottom) - wanted).min(axis=1) - _MARGIN
    high = (np.log(top) - wanted).max(axis=1) + _MARGIN
    kept = np.repeat(bottom[None], len(wanted), axis=0)
    widest = np.repeat(top[None], len(wanted), axis=0)
    whole = peaks(widest) <= targets_bytes
    kept[whole] = widest[whole]
    left = np.flatnonzero(~whole)
    groups = np.arange(len(top))
    for _ in range(_HALVINGS):
        middle = (low[left] + high[left]) / 2
        # The margin rounds 7.9999999 to 8 channels, as the rounding of ratios does.
        channels = np.exp(wanted[left] + middle[:, None]) * (1 + _MARGIN)
        rows = rounded[groups, np.minimum(channels, top).astype(np.int64)]
        fits = peaks(rows) <= targets_bytes[left]
        kept[left[fits]] = rows[fits]
        low[left[fits]] = middle[fits]
        high[left[~fits]] = middle[~fits]
    return kept


@lru_cache(maxsize=8)
def _rounding(ladders: tuple[tuple[int, ...], ...]) -> Counts:
    """Return the table, shape (groups, channels + 1), that rounds channels down to the ladders."""
    table = np.empty((len(ladders), max(ladder[-1] for ladder in ladders) + 1), dtype=np.int64)
    for group, ladder in enumerate(ladders):
        positions = np.searchsorted(ladder, np.arange(table.shape[1]), side="right") - 1
        table[group] = np.asarray(ladder)[np.maximum(positions, 0)]
    return table
