"""What to ask for where nothing fits: a larger loss, or a larger RAM."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dse.candidate import Candidate
from dse.deploy.contenders import Contender, Pool
from dse.units import exact_size


class MeasuredStep(Protocol):
    """What a measured training step tells (see ``dse.memory.measure.Measurement``)."""

    @property
    def peak_bytes(self) -> int:
        """Most bytes held."""

    @property
    def step_seconds(self) -> float:
        """Median seconds of a step."""


Measure = Callable[[Candidate], MeasuredStep]


@dataclass(frozen=True, kw_only=True)
class LeastDrop:
    """The contender that loses least of those that fit.

    Attributes:
        label: of the contender.
        max_drop: points, rounded up to a tenth; what to give as --max-drop.
    """

    label: str
    max_drop: float


def least_drop(found: Sequence[Pool], *, budget_bytes: int, measure: Measure) -> LeastDrop | None:
    """Find the smallest loss with which something fits.

    Args:
        found: the contenders.
        budget_bytes: what a step may hold.
        measure: runs a step; called for what is predicted to fit, until one does.

    Returns:
        None where nothing fits, whatever it may lose.
    """
    fitting = [
        (pool.drop(one), one)
        for pool in found
        for one in pool.contenders
        if one.peak_bytes <= budget_bytes
    ]
    for drop, one in sorted(fitting, key=lambda pair: (pair[0], pair[1].peak_bytes)):
        if measure(one.candidate).peak_bytes <= budget_bytes:
            return LeastDrop(label=one.label, max_drop=_tenth_above(drop))
    return None


def smallest_within(found: Sequence[Pool], *, max_drop: float) -> Contender:
    """Return the smallest contender that loses no more; the unpruned network always qualifies."""
    within = [
        one for pool in found for one in pool.contenders if pool.qualifies(one, max_drop=max_drop)
    ]
    return min(within, key=lambda one: one.peak_bytes)


def smallest_of_all(found: Sequence[Pool]) -> Contender:
    """Return the smallest contender, whatever it loses."""
    return min((one for pool in found for one in pool.contenders), key=lambda one: one.peak_bytes)


def suggested_flags(
    found: Sequence[Pool], *, budgets: Sequence[int], max_drop: float, measure: Measure
) -> str:
    """Write the flags of a `dse pick` that succeeds.

    It is for the smallest budget that something fits with the default loss; else for the largest
    budget and the loss that it takes; else for the RAM that the smallest contender needs.

    Args:
        found: the contenders.
        budgets: of the study, in bytes.
        max_drop: points that may be lost where --max-drop isn't given.
        measure: runs a step; called once, and where that is over all budgets a few times more.
    """
    least = smallest_within(found, max_drop=max_drop)
    need = max(least.peak_bytes, measure(least.candidate).peak_bytes)
    for budget in sorted(budgets):
        if need <= budget:
            return f"--ram {_flag(budget)}"
    largest = max(budgets)
    cheapest = least_drop(found, budget_bytes=largest, measure=measure)
    if cheapest is not None:
        return f"--ram {_flag(largest)} --max-drop {cheapest.max_drop:g}"
    return f"--ram {size_above(need)}"


def size_above(size_bytes: int) -> str:
    """Write a size that holds so many bytes as a flag takes it: one decimal, rounded up."""
    unit, scale = ("KiB", 2**10) if size_bytes < 2**20 else ("MiB", 2**20)
    tenths = -(-size_bytes * 10 // scale)
    return f"{tenths // 10}.{tenths % 10}{unit}"


def _flag(size_bytes: int) -> str:
    return str(exact_size(size_bytes)).replace(" ", "")


def _tenth_above(points: float) -> float:
    return max(0.0, math.ceil(points * 10 - 1e-6) / 10)
