"""Relax: whatever a candidate could keep without needing more memory, it keeps.

Memory never falls when a group keeps more, so a candidate is the widest of its memory exactly if
no single group can gain its next count. Weights are held throughout a step: with the convention
`tensors` every channel costs some bytes, and nothing is free at a candidate's own peak. What
relaxing gives back there is what rounding to whole multiples left below a target (see
`dse.sampling.aim`).
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Peaks = Callable[[Counts], NDArray[np.int64]]
"""Peak bytes of candidates, (n, groups) channels to (n,); never falling in any group."""

# Where so many steps of the chosen group would fit, several are taken at once.
_FINEST = 32


def relax(
    kept: Sequence[int],
    *,
    ladders: Sequence[Sequence[int]],
    peaks: Peaks,
    limit_bytes: int | None = None,
) -> tuple[int, ...]:
    """Give back channels, the best value first, until no group can gain its next count.

    A step is worth the relative width it gives back, log(next / kept), over the bytes by which it
    raises the peak; what raises it by nothing comes before all else. Among equals the group that
    lost the larger share goes first, then the one that is executed first.

    Args:
        kept: channels of each group.
        ladders: the counts that each group may keep, rising; a single one where there is no choice.
        peaks: of candidates.
        limit_bytes: what the result may need; the candidate's own peak if None. A candidate that
            needs more is left as it is.

    Returns:
        Channels of each group, nowhere fewer than `kept`, at most `limit_bytes`.
    """
    counts = np.array(kept, dtype=np.int64)
    peak = int(peaks(counts[None])[0])
    limit = peak if limit_bytes is None else limit_bytes
    if peak > limit:
        return tuple(kept)
    widest = np.array([ladder[-1] for ladder in ladders], dtype=np.int64)
    rungs = [np.asarray(ladder, dtype=np.int64) for ladder in ladders]
    while True:
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
    """Return the next count of a ladder; `count` itself at its top or above it."""
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
    """Go on with one group: to the end of what is free, or by a small part of what is left."""
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
