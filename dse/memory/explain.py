"""Explain a step's peak: what is held there, and what pruning or a smaller batch would save."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dse.memory.model import MemoryModel
from dse.memory.timeline import Timeline

LARGEST_BATCH = 2**20


@dataclass(frozen=True)
class Holding:
    """Buffers that one operator of a module holds at the peak.

    Attributes:
        category: One of ``CATEGORIES``.
        module, operator: Where the buffers were born. The operator is empty for buffers that lived
            before the step.
        bytes: Total size of the buffers.
        buffers: Number of buffers.
    """

    category: str
    module: str
    operator: str
    bytes: int
    buffers: int


@dataclass(frozen=True)
class Moment:
    """A local maximum of the step: more is held than just before and just after it."""

    bytes: int
    phase: str
    operator: str
    module: str


@dataclass(frozen=True)
class GroupSaving:
    """How the peak falls if one channel group is pruned and all others are kept.

    Attributes:
        group: Name of the group.
        channels: Channels that it keeps now.
        bytes_per_channel: Decrease of the peak per channel, for the next channels removed.
        useful_until: Smallest count that still lowers the peak. Fewer channels save nothing more.
        largest_saving_bytes: Decrease of the peak at that count.
    """

    group: str
    channels: int
    bytes_per_channel: float
    useful_until: int
    largest_saving_bytes: int


@dataclass(frozen=True)
class Explanation:
    """Explanation of one candidate's peak.

    Attributes:
        holdings: Everything held at the peak, largest first.
        moments: The highest local maxima, starting with the peak, one per phase, operator and
            module.
        savings: One saving per channel group, largest first.
    """

    holdings: tuple[Holding, ...]
    moments: tuple[Moment, ...]
    savings: tuple[GroupSaving, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that the command line prints."""
        return {
            "holdings": [vars(holding) for holding in self.holdings],
            "moments": [vars(moment) for moment in self.moments],
            "savings": [vars(saving) for saving in self.savings],
        }


def explain(
    model: MemoryModel, channels: Sequence[int], *, batch_size: int, moments: int = 5
) -> Explanation:
    """Explain one candidate's peak.

    Args:
        model: Memory model of the network and step.
        channels: Kept channels, shape (groups,).
        batch_size: Images per step.
        moments: Number of local maxima to list, including the peak.

    Raises:
        MemoryModelError: If the channels or the batch size are out of range.
    """
    timeline = model.timeline(channels, batch_size=batch_size)
    return Explanation(
        holdings=_holdings(model, channels, batch_size),
        moments=_moments(timeline, moments),
        savings=tuple(
            sorted(
                (
                    group_saving(model, channels, group, batch_size=batch_size)
                    for group in range(len(model.groups))
                ),
                key=lambda saving: (-saving.largest_saving_bytes, -saving.bytes_per_channel),
            )
        ),
    )


def _holdings(model: MemoryModel, channels: Sequence[int], batch_size: int) -> tuple[Holding, ...]:
    together: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for category, site, size in model.held_at_peak(channels, batch_size=batch_size):
        together[category, site.module, site.operator].append(size)
    holdings = [
        Holding(category, module, operator, sum(sizes), len(sizes))
        for (category, module, operator), sizes in together.items()
    ]
    return tuple(sorted(holdings, key=lambda holding: -holding.bytes))


def _moments(timeline: Timeline, count: int) -> tuple[Moment, ...]:
    held = timeline.bytes.sum(axis=1)
    rises = np.diff(held, prepend=0) > 0
    falls = np.diff(held, append=0) < 0
    found: dict[tuple[str, str, str], Moment] = {}
    for index in sorted(np.flatnonzero(rises & falls), key=lambda index: -held[index]):
        site = timeline.sites[index]
        key = (site.phase, site.operator, site.module)
        found.setdefault(key, Moment(int(held[index]), *key))
        if len(found) == count:
            break
    return tuple(found.values())


def group_saving(
    model: MemoryModel, channels: Sequence[int], group: int, *, batch_size: int
) -> GroupSaving:
    """Compute the saving of pruning one group alone, by trying every count.

    Args:
        model: Memory model of the network and step.
        channels: Kept channels of all groups, shape (groups,).
        group: Index of the group.
        batch_size: Images per step.
    """
    known = model.groups[group]
    kept = int(channels[group])
    counts = np.arange(known.multiple, kept + 1, known.multiple)
    candidates = np.tile(np.asarray(channels), (len(counts), 1))
    candidates[:, group] = counts
    peaks: NDArray[np.int64] = model.peaks(candidates, batch_size=batch_size)
    # Peaks never fall as channels are added, so they are sorted. The last count that has the lowest
    # peak is the largest one that saves most.
    useful = int(np.searchsorted(peaks, peaks[0], side="right")) - 1
    step = int(peaks[-1] - peaks[-2]) if len(peaks) > 1 else 0
    return GroupSaving(
        group=known.name,
        channels=kept,
        bytes_per_channel=step / known.multiple,
        useful_until=int(counts[useful]),
        largest_saving_bytes=int(peaks[-1] - peaks[0]),
    )


def largest_batch(model: MemoryModel, channels: Sequence[int], *, budget_bytes: int) -> int:
    """Return the largest batch size whose step fits a budget, or 0 if not even one image fits.

    Args:
        model: Memory model of the network and step.
        channels: Kept channels, shape (groups,).
        budget_bytes: Memory budget.
    """

    def fits(batch_size: int) -> bool:
        return bool(model.peaks(channels, batch_size=batch_size) <= budget_bytes)

    if not fits(1):
        return 0
    # Double the batch until it no longer fits, then bisect.
    fitting, beyond = 1, 2
    while beyond <= LARGEST_BATCH and fits(beyond):
        fitting, beyond = beyond, 2 * beyond
    while beyond - fitting > 1:
        middle = (fitting + beyond) // 2
        fitting, beyond = (middle, beyond) if fits(middle) else (fitting, middle)
    return fitting
