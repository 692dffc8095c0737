"""`peak-greedy`: prune where the peak is, repeatedly (Yoosefi et al., FMEC 2023).

One step of the rule, starting from the unpruned network:

1. Find the moment at which the training step holds most memory, using the memory model.
2. Compute what each group *carries* at that moment: its kept channels times the bytes that one
   channel holds then (the derivative of the peak). A group that carries nothing is not alive at the
   peak, and pruning it wouldn't lower the peak.
3. Of the groups that may be pruned further, the one that carries most loses one channel (or one
   multiple, if counts must be multiples). On a tie, the group that is executed first loses it.

The rule ends when the budget is reached, or when no group that is alive at the peak can be pruned
further. Memory alone decides which group is pruned, and importance alone which of its channels go.
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
        most: number of channels before pruning.
        fewest: minimum number of channels.
        multiple: pruned counts are multiples of this.
    """

    most: int
    fewest: int
    multiple: int = 1

    def next_below(self, channels: int) -> int | None:
        """Return the next smaller count that is allowed; None if there is none."""
        fewer = self.multiple * ((channels - 1) // self.multiple)
        return fewer if fewer >= self.fewest else None


def limits_of(choices: Sequence[GroupChoice]) -> tuple[Limits, ...]:
    """Return how far a search space lets each group be pruned; fixed groups get a single count."""
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
    """Every network that the greedy rule passed through, in order.

    Attributes:
        channels: kept channels, (points, groups); the first row is the starting network.
        peak_bytes: peak of each network, (points,), non-increasing.
    """

    channels: Ints
    peak_bytes: Ints

    def first_within(self, budget_bytes: int) -> int:
        """Return the index of the first network whose peak is within a budget.

        Raises:
            InfeasibleError: if the peak of the last network exceeds the budget.
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
        """Indices of the networks whose peak is below all before it: the corners of the curve."""
        before = np.minimum.accumulate(np.append(self.peak_bytes[0] + 1, self.peak_bytes[:-1]))
        return np.flatnonzero(self.peak_bytes < before)


def peak_greedy(
    model: MemoryModel,
    *,
    batch_size: int,
    limits: Sequence[Limits],
    budget_bytes: int = 0,
) -> Trajectory:
    """Follow the rule down to the budget, or to the smallest network that it reaches.

    Args:
        model: memory model of the network's training step.
        batch_size: images per step.
        limits: how far each group may be pruned, (groups,).
        budget_bytes: peak in bytes at which to stop.

    Raises:
        PruningError: if the number of limits differs from the number of groups.
        MemoryModelError: if a limit or the batch size is out of range.
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
