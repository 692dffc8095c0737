"""`peak-greedy`: prune where the peak is, again and again (Yoosefi et al., FMEC 2023).

The rule, one step at a time, from the unpruned network on:

1. Find the moment at which the training step holds most, by the memory model.
2. A group *carries* there what its channels take up: channels kept, times the bytes that one
   channel holds at that moment (the derivative of the peak). Groups that carry nothing are not
   alive at the peak; pruning them wouldn't lower it.
3. Of the groups that may still lose channels, the one that carries most loses one channel (or one
   multiple, where counts must be multiples): its least important one, when the network is cut.
   Among equals the first executed loses.

It ends when the budget is reached, or when no group that is alive at the peak may lose any more.
Which channels go is for the importance alone; which group, for the memory alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dse.candidate import kept_channels
from dse.config.space import GroupChoice
from dse.errors import InfeasibleError, PruningError
from dse.memory.model import MemoryModel
from dse.units import format_size

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Limits:
    """How far one channel group may be pruned.

    Attributes:
        most: channels it begins with.
        fewest: channels it must keep.
        multiple: of which counts below the first are multiples.
    """

    most: int
    fewest: int
    multiple: int = 1

    def next_below(self, channels: int) -> int | None:
        """Return the next smaller count that is allowed; None if there is none."""
        fewer = self.multiple * ((channels - 1) // self.multiple)
        return fewer if fewer >= self.fewest else None


def limits_of(choices: Sequence[GroupChoice]) -> tuple[Limits, ...]:
    """Read from a search space how far each group may be pruned; fixed groups don't move."""
    limits = []
    for one in choices:
        low, high = (0.0, one.high) if one.fixed is None else (one.fixed, one.fixed)
        most, fewest = (
            kept_channels(one.channels, ratio, multiple=one.multiple, floor=one.floor)
            for ratio in (low, high)
        )
        limits.append(Limits(most, fewest, one.multiple))
    return tuple(limits)


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Every network that a greedy rule passed through, in its order.

    Attributes:
        channels: (points, groups) kept channels; the first row is the network it began with.
        peak_bytes: (points,) of each, never rising.
    """

    channels: Ints
    peak_bytes: Ints

    def first_within(self, budget_bytes: int) -> int:
        """Return the index of the first network whose peak is within a budget.

        Raises:
            InfeasibleError: not even the last one is.
        """
        fitting = np.flatnonzero(self.peak_bytes <= budget_bytes)
        if not len(fitting):
            raise InfeasibleError(
                f"peak-greedy reaches {format_size(int(self.peak_bytes[-1]))}, not "
                f"{format_size(budget_bytes)}: raise the budget, or let the search space go lower"
            )
        return int(fitting[0])

    @cached_property
    def corners(self) -> Ints:
        """Indices of the networks whose peak is below that of all before: the rule's curve."""
        before = np.minimum.accumulate(np.append(self.peak_bytes[0] + 1, self.peak_bytes[:-1]))
        return np.flatnonzero(self.peak_bytes < before)


def peak_greedy(
    model: MemoryModel,
    *,
    batch_size: int,
    limits: Sequence[Limits],
    budget_bytes: int = 0,
) -> Trajectory:
    """Follow the rule until the budget, or to the smallest network that it reaches.

    Args:
        model: of the network and scheme.
        batch_size: images per step.
        limits: (groups,) how far each may be pruned.
        budget_bytes: where to stop.

    Raises:
        PruningError: there isn't one limit for each group.
        MemoryModelError: a limit or the batch size is out of range.
    """
    if len(limits) != len(model.groups):
        raise PruningError(
            f"{len(limits)} limits for {len(model.groups)} channel groups: give one for each"
        )
    kept = np.array([limit.most for limit in limits], dtype=np.int64)
    below = [limit.next_below(limit.most) for limit in limits]
    free = np.array([count is not None for count in below])
    passed, peaks = [], []
    while True:
        peak, bytes_per_channel = model.peak_and_gradient(kept, batch_size=batch_size)
        passed.append(kept.copy())
        peaks.append(peak)
        carried = np.where(free, kept * bytes_per_channel, 0.0)
        group = int(carried.argmax()) if len(carried) else 0
        if peak <= budget_bytes or not carried.any() or (fewer := below[group]) is None:
            break
        kept[group] = fewer
        below[group] = limits[group].next_below(fewer)
        free[group] = below[group] is not None
    return Trajectory(np.array(passed), np.array(peaks, dtype=np.int64))
