"""Convert candidates' channels to a memory model's units, and reject those out of range."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.errors import MemoryModelError

LARGEST_BATCH = 2**24  # larger ones could exceed the integers that are exact in double precision


@dataclass(frozen=True)
class ModelGroup:
    """A channel group of a memory model.

    Attributes:
        name: Name of the group's first executed module.
        channels: Number of channels in the unpruned network.
        multiple: Kept counts must be multiples of this (grouped convolutions).
        fewest: Minimum count (attention heads).
    """

    name: str
    channels: int
    multiple: int
    fewest: int = 1


class ChannelUnits:
    """Converts channels to units. A unit is a group's ``multiple`` of channels.

    Attributes:
        groups: Channel groups, one per column of ``channels``.
        multiples: Channels per unit, shape (groups,).
    """

    def __init__(self, groups: Sequence[ModelGroup]) -> None:
        self.groups = tuple(groups)
        self.multiples = np.array([group.multiple for group in groups], dtype=np.int64)
        self._full = np.array([group.channels for group in groups], dtype=np.int64)
        self._fewest = np.array([group.fewest for group in groups], dtype=np.int64)
        self._coupled = bool((self.multiples != 1).any())

    def of(self, channels: ArrayLike) -> NDArray[np.float64]:
        """Convert channels to units in double precision.

        Args:
            channels: Kept channels, integers of shape (n, groups) or (groups,).

        Returns:
            Units, of the same shape.

        Raises:
            MemoryModelError: If the shape or a count is wrong.
        """
        try:
            counts = np.asarray(channels)
        except ValueError as error:  # rows of unequal length
            raise MemoryModelError(
                f"channels must have shape (n, {len(self._full)}), one column a group: {error}"
            ) from error
        if not counts.size:  # NumPy makes an empty list an array of floats
            counts = counts.astype(np.int64)
        if counts.ndim not in (1, 2) or counts.shape[-1] != len(self._full):
            raise MemoryModelError(
                f"channels must have shape (n, {len(self._full)}), one column a group, "
                f"not {counts.shape}"
            )
        if counts.dtype.kind not in "iu":
            raise MemoryModelError(f"channels must be whole numbers, not {counts.dtype}")
        if counts.size and ((counts < self._fewest).any() or (counts > self._full).any()):
            raise MemoryModelError(self._out_of_range(counts))
        if self._coupled:
            if (counts % self.multiples).any():
                raise MemoryModelError(self._out_of_range(counts))
            counts = counts // self.multiples
        return counts.astype(np.float64)

    def of_one(self, channels: ArrayLike) -> NDArray[np.int64]:
        """Convert the channels of one candidate to whole units, both of shape (groups,).

        Raises:
            MemoryModelError: If the shape or a count is wrong.
        """
        units = self.of(channels)
        if units.ndim != 1:
            raise MemoryModelError(f"one candidate has shape (groups,), not {units.shape}")
        return units.astype(np.int64)

    def _out_of_range(self, counts: NDArray[Any]) -> str:
        wrong = (counts < self._fewest) | (counts > self._full) | (counts % self.multiples != 0)
        group = int(np.argwhere(np.atleast_2d(wrong))[0][1])
        value = np.atleast_2d(counts)[np.atleast_2d(wrong)[:, group], group][0]
        known = self.groups[group]
        return (
            f"channel group {known.name!r} can't keep {value} channels: it has {known.channels} "
            f"and takes multiples of {known.multiple} from {max(known.fewest, known.multiple)} on"
        )


def checked_batch_size(batch_size: int) -> int:
    """Return a batch size unless it is out of range.

    Raises:
        MemoryModelError: If it is no whole number from 1 to ``LARGEST_BATCH``.
    """
    whole = isinstance(batch_size, (int, np.integer)) and not isinstance(batch_size, bool)
    if not whole or not 1 <= batch_size <= LARGEST_BATCH:
        raise MemoryModelError(
            f"batch_size must be from 1 to {LARGEST_BATCH:,}, not {batch_size!r}"
        )
    return batch_size
