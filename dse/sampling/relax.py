"""Relax: let a candidate keep every channel that does not raise its peak above a limit.

Peak memory never falls when a group keeps more channels. A candidate is therefore the widest within
its limit exactly if no single group can take its next count. Under the convention `tensors`,
weights are held throughout the step and every channel costs some bytes, so no channel is free at a
candidate's own peak. Relaxing then only uses the bytes that rounding to whole multiples left below
a target (see `dse.sampling.aim`).
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Peaks = Callable[[Counts], NDArray[np.int64]]
"""Maps channels, shape (n, groups), to peak bytes, shape (n,). Non-decreasing in every group."""

# If at least this many steps of the chosen group fit below the limit, several are taken at once.
_FINEST = 32


def relax(
    kept: Sequence[int],
    *,
    ladders: Sequence[Sequence[int]],
    peaks: Peaks,
    limit_bytes: int | None = None,
) -> tuple[int, ...]:
    """Add channels greedily by value, until no group can take its next count.

    The value of a step is its relative gain of width, log(next / kept), divided by the bytes that
    it adds to the peak. Steps that add none come first. Ties go to the group that has lost the
    larger share of its channels, then to the group that is executed first.

    Args:
        kept: Channels of each group.
        ladders: For each group, the channel counts that it may keep, in ascending order. A fixed
            group has a single count.
        peaks: Maps candidates to their peak bytes.
        limit_bytes: Limit of the result's peak. Defaults to the candidate's own peak. A candidate
            above the limit is returned unchanged.

    Returns:
        Channels of each group, at least `kept`, with a peak of at most `limit_bytes`.
    """
    counts = np.array(kept, dtype=np.int64)
    peak = int(peaks(counts[None])[0])
    limit = peak if limit_bytes is None else limit_bytes
    if peak > limit:
        return tuple(kept)
    widest = np.array([ladder[-1] for ladder in ladders], dtype=np.int64)
    rungs = [np.asarray(ladder, dtype=np.int64) for ladder in ladders]
    while True:
        # Evaluate the next step of every group at once, then take the most valuable that fits.
        following = np.array(
            [above(rung, count) for rung, count in zip(rungs, counts, strict=True)], dtype=np.int64
        )
        gainers = np.flatnonzero(following > counts)
        if not len(gainers):
            break
        rows = np.repeat(counts[None], len(gainers), axis=0)
        rows[np.arange(len(gainers)), gainers] = following[gainers]
        needed = peaks(rows)
        fits = np.flatnonzero(needed <= limit)
        if not len(fits):
            break
        best = min(
            fits,
            key=lambda row: _order(
                int(counts[gainers[row]]),
                int(following[gainers[row]]),
                int(widest[gainers[row]]),
                rise=int(needed[row]) - peak,
                position=int(row),
            ),
        )
        group = int(gainers[best])
        rise = int(needed[best]) - peak
        counts[group], peak = following[group], int(needed[best])
        counts, peak = _further(
            counts, peak, group=group, rung=rungs[group], rise=rise, limit=limit, peaks=peaks
        )
    return tuple(int(count) for count in counts)


def above(ladder: NDArray[np.int64], count: int) -> int:
    """Return the next higher count of a ladder, or `count` itself if there is none."""
    position = int(np.searchsorted(ladder, count, side="right"))
    return int(ladder[position]) if position < len(ladder) else int(count)


def _order(
    count: int, following: int, widest: int, *, rise: int, position: int
) -> tuple[float, float, int]:
    gain = float(np.log(following / count))
    return (-np.inf if rise == 0 else -gain / rise, count / widest, position)


def _further(
    counts: Counts,
    peak: int,
    *,
    group: int,
    rung: NDArray[np.int64],
    rise: int,
    limit: int,
    peaks: Peaks,
) -> tuple[Counts, int]:
    """Widen one group further: through all free steps, or by a small part of the bytes left."""
    position = int(np.searchsorted(rung, counts[group], side="left"))
    ahead = rung[position + 1 :]
    if rise:
        ahead = ahead[: (limit - peak) // (_FINEST * rise)]
    if not len(ahead):
        return counts, peak
    rows = np.repeat(counts[None], len(ahead), axis=0)
    rows[:, group] = ahead
    needed = peaks(rows)
    allowed = needed <= (limit if rise else peak)
    if not allowed[0]:
        return counts, peak
    last = int(np.flatnonzero(allowed)[-1])
    return rows[last], int(needed[last])
