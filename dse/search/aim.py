"""Aim: targets spread over memory, and candidates scaled to just below theirs."""

import math
from collections.abc import Sequence

import numpy as np

from dse.search.relax import Counts, Peaks

# The inverse of the golden ratio: its multiples fill the unit interval most evenly, however many
# are taken (Knuth, The Art of Computer Programming 3, section 6.4).
_GOLDEN = (math.sqrt(5) - 1) / 2

# Each pass narrows the scale to one in so many parts.
_PARTS = 33
_PASSES = 4


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
    draw: int, *, smallest_bytes: int, largest_bytes: int, budgets: Sequence[int], seed: int = 0
) -> int:
    """Return what one draw aims at.

    After `targets`, the draws fill the range between its ends evenly in the logarithm of bytes:
    each next one falls into one of the widest gaps, and none is aimed at twice. It depends on the
    draw's number alone, so that a run that goes on aims at what it would have.

    Args:
        draw: how many draws came before.
        smallest_bytes: see `targets`.
        largest_bytes: see `targets`.
        budgets: see `targets`.
        seed: shifts the sequence.

    Returns:
        Bytes.
    """
    first = targets(smallest_bytes=smallest_bytes, largest_bytes=largest_bytes, budgets=budgets)
    if draw < len(first):
        return first[draw]
    share = ((draw - len(first) + 1) * _GOLDEN + seed * math.sqrt(2)) % 1.0
    low, high = math.log(smallest_bytes), math.log(largest_bytes)
    return min(largest_bytes, max(smallest_bytes, int(math.exp(low + share * (high - low)))))


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
    wanted = np.log(shares) + np.log([ladder[-1] for ladder in ladders])
    # From where every group is at its lowest count to where every one is at its highest.
    low = min(math.log(ladder[0]) - want for ladder, want in zip(ladders, wanted, strict=True))
    high = max(math.log(ladder[-1]) - want for ladder, want in zip(ladders, wanted, strict=True))
    low, high = low - 1e-9, high + 1e-9
    rungs = [np.asarray(ladder, dtype=np.int64) for ladder in ladders]
    best = np.array([ladder[0] for ladder in ladders], dtype=np.int64)
    for _ in range(_PASSES):
        factors = np.linspace(low, high, _PARTS)
        rows = _rows(np.exp(wanted[None] + factors[:, None]), rungs)
        fits = np.flatnonzero(peaks(rows) <= target_bytes)
        if not len(fits):
            break
        last = int(fits[-1])
        best = rows[last]
        if last == _PARTS - 1:
            break
        low, high = float(factors[last]), float(factors[last + 1])
    return tuple(int(count) for count in best)


def _rows(wanted: np.ndarray, rungs: Sequence[np.ndarray]) -> Counts:
    """Round wanted channels, (n, groups), down to the ladders' counts."""
    rows = np.empty(wanted.shape, dtype=np.int64)
    for group, rung in enumerate(rungs):
        # As in rounding ratios: 8 channels that come out as 7.9999999 are 8.
        positions = np.searchsorted(rung, wanted[:, group] * (1 + 1e-9), side="right") - 1
        rows[:, group] = rung[np.maximum(positions, 0)]
    return rows
