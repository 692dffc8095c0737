"""Aim: targets spread over memory, and candidates scaled to just below theirs."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dse.sampling.relax import Counts, Peaks

# The inverse of the golden ratio: its multiples fill the unit interval most evenly, however many
# are taken (Knuth, The Art of Computer Programming 3, section 6.4).
_GOLDEN = (math.sqrt(5) - 1) / 2

_MARGIN = 1e-9  # of a factor
# Leaves a factor that is known to eight digits: no two counts of a ladder are closer.
_HALVINGS = 30


def targets(*, smallest_bytes: int, largest_bytes: int, budgets: Sequence[int]) -> tuple[int, ...]:
    """Return what is aimed at first: the ends of the front, and every budget between them.

    Args:
        smallest_bytes: peak of the smallest network of the space.
        largest_bytes: the larger end: the largest budget, or the peak of the widest network.
        budgets: bytes.

    Returns:
        Bytes, largest first.
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
    """Return what one draw aims at.

    After `targets`, the draws fill the range up to the larger end evenly in the logarithm of bytes:
    each next one falls into one of the widest gaps, and none is aimed at twice. It depends on the
    draw's number alone, so that a run that goes on aims at what it would have.

    Args:
        draw: how many draws came before.
        smallest_bytes: see `targets`.
        largest_bytes: see `targets`.
        budgets: see `targets`.
        lowest_bytes: where the range begins that is filled; the smaller end if None.
        seed: shifts the sequence.

    Returns:
        Bytes.
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
    """Widen or narrow all groups by one factor, so that the peak comes close to a target.

    The factor moves all groups alike in log channels, each up to the ends of its ladder: one
    direction leads from the smallest network of the space to the widest.

    Args:
        shares: (groups,) kept shares of the groups' channels, above 0: the direction.
        ladders: the counts that each group may keep, rising.
        peaks: of candidates.
        target_bytes: most that the result may need.

    Returns:
        Channels of each group: of the largest factor whose candidate needs at most the target; the
        smallest network where even that needs more.
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
    """Scale many directions at once, each to its own target; see `scale`.

    Args:
        shares: (n, groups) kept shares, above 0.
        ladders: the counts that each group may keep, rising.
        peaks: of candidates.
        targets_bytes: (n,) most that each result may need.

    Returns:
        (n, groups) channels.
    """
    rounded = _rounding(tuple(map(tuple, ladders)))
    bottom = np.array([ladder[0] for ladder in ladders], dtype=np.int64)
    top = np.array([ladder[-1] for ladder in ladders], dtype=np.int64)
    wanted = np.log(shares) + np.log(top)
    # From where every group is at its lowest count to where every one is at its highest.
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
        # As in rounding ratios: 8 channels that come out as 7.9999999 are 8.
        channels = np.exp(wanted[left] + middle[:, None]) * (1 + _MARGIN)
        rows = rounded[groups, np.minimum(channels, top).astype(np.int64)]
        fits = peaks(rows) <= targets_bytes[left]
        kept[left[fits]] = rows[fits]
        low[left[fits]] = middle[fits]
        high[left[~fits]] = middle[~fits]
    return kept


@lru_cache(maxsize=8)
def _rounding(ladders: tuple[tuple[int, ...], ...]) -> Counts:
    """Return what each whole number of channels is rounded to: (groups, channels + 1) counts."""
    table = np.empty((len(ladders), max(ladder[-1] for ladder in ladders) + 1), dtype=np.int64)
    for group, ladder in enumerate(ladders):
        positions = np.searchsorted(ladder, np.arange(table.shape[1]), side="right") - 1
        table[group] = np.asarray(ladder)[np.maximum(positions, 0)]
    return table
