"""Why a step does not fit, and what would help: questions to a memory model."""

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
    """What one module's operator holds at the peak.

    Attributes:
        category: see ``CATEGORIES``.
        module, operator: where the buffers were born; empty for what lived before the step.
        bytes: of all of them together.
        buffers: how many they are.
    """

    category: str
    module: str
    operator: str
    bytes: int
    buffers: int


@dataclass(frozen=True)
class Moment:
    """A local maximum of the step: more is held than just before and just after."""

    bytes: int
    phase: str
    operator: str
    module: str


@dataclass(frozen=True)
class GroupSaving:
    """What pruning one channel group alone does to the peak.

    Attributes:
        group: its name.
        channels: how many it keeps now.
        bytes_per_channel: how much the peak falls with the next channel.
        useful_until: the fewest channels that still lower the peak; fewer save nothing.
        largest_saving_bytes: how much the peak falls when it keeps that many.
    """

    group: str
    channels: int
    bytes_per_channel: float
    useful_until: int
    largest_saving_bytes: int


@dataclass(frozen=True)
class Explanation:
    """The peak of one candidate, taken apart.

    Attributes:
        holdings: all that is held at the peak, largest first.
        moments: the highest local maxima, the peak first, one per phase, operator and module.
        savings: one per channel group, the most useful first.
    """

    holdings: tuple[Holding, ...]
    moments: tuple[Moment, ...]
    savings: tuple[GroupSaving, ...]

    def to_json(self) -> dict[str, Any]:
        """As the command line prints it."""
        return {
            "holdings": [vars(holding) for holding in self.holdings],
            "moments": [vars(moment) for moment in self.moments],
            "savings": [vars(saving) for saving in self.savings],
        }


def explain(
    model: MemoryModel, channels: Sequence[int], *, batch_size: int, moments: int = 5
) -> Explanation:
    """Take one candidate's peak apart.

    Args:
        model: of its network and scheme.
        channels: (groups,) kept channels.
        batch_size: images per step.
        moments: how many local maxima to name, the peak included.

    Raises:
        MemoryModelError: the channels or the batch size are out of range.
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
    """What pruning one group alone would do, every count of it being tried.

    Args:
        model: of the network and scheme.
        channels: (groups,) kept channels of all groups.
        group: index of the one in question.
        batch_size: images per step.
    """
    known = model.groups[group]
    kept = int(channels[group])
    counts = np.arange(known.multiple, kept + 1, known.multiple)
    candidates = np.tile(np.asarray(channels), (len(counts), 1))
    candidates[:, group] = counts
    peaks: NDArray[np.int64] = model.peaks(candidates, batch_size=batch_size)
    # The peak never falls when a channel is added, so the least useful counts come first.
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
    """The largest batch whose step fits a budget; 0 where not even one image does.

    Args:
        model: of the network and scheme.
        channels: (groups,) kept channels.
        budget_bytes: of memory.
    """

    def fits(batch_size: int) -> bool:
        return bool(model.peaks(channels, batch_size=batch_size) <= budget_bytes)

    if not fits(1):
        return 0
    fitting, beyond = 1, 2
    while beyond <= LARGEST_BATCH and fits(beyond):
        fitting, beyond = beyond, 2 * beyond
    while beyond - fitting > 1:
        middle = (fitting + beyond) // 2
        fitting, beyond = (middle, beyond) if fits(middle) else (fitting, middle)
    return fitting
