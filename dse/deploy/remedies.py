"""What to change if nothing fits: allow a larger loss, or more RAM."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dse.deploy.contenders import Contender, Pool
from dse.deploy.measure import Measure
from dse.units import exact_text


@dataclass(frozen=True, kw_only=True)
class LeastDrop:
    """The contender with the smallest loss among those that fit.

    Attributes:
        label: label of the contender.
        max_drop: its loss in points, rounded up to a tenth; a value for --max-drop.
    """

    label: str
    max_drop: float


def least_drop(found: Sequence[Pool], *, budget_bytes: int, measure: Measure) -> LeastDrop | None:
    """Find the smallest loss with which something fits.

    Args:
        found: pools of contenders.
        budget_bytes: bytes that a step may hold.
        measure: runs a step; called for contenders that are predicted to fit, until one does.

    Returns:
        The contender; None if nothing fits, regardless of its loss.
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
    """Return the smallest contender within a loss; the unpruned network always qualifies."""
    within = [
        one for pool in found for one in pool.contenders if pool.qualifies(one, max_drop=max_drop)
    ]
    return min(within, key=lambda one: one.peak_bytes)


def smallest_of_all(found: Sequence[Pool]) -> Contender:
    """Return the smallest contender, regardless of its loss."""
    return min((one for pool in found for one in pool.contenders), key=lambda one: one.peak_bytes)


def suggested_flags(
    found: Sequence[Pool], *, budgets: Sequence[int], max_drop: float, measure: Measure
) -> str:
    """Return flags of a `dse pick` that succeeds.

    They are for the smallest budget that something fits with the default loss; otherwise for the
    largest budget with the loss that it takes; otherwise for the RAM that the smallest contender
    needs.

    Args:
        found: pools of contenders.
        budgets: budgets of the study in bytes.
        max_drop: default of --max-drop in points.
        measure: runs a step; called once, or a few times more if that step exceeds all budgets.
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
    """Return a size of at least that many bytes as a flag's value, rounded up to one decimal."""
    unit, scale = ("KiB", 2**10) if size_bytes < 2**20 else ("MiB", 2**20)
    tenths = -(-size_bytes * 10 // scale)
    return f"{tenths // 10}.{tenths % 10}{unit}"


def _flag(size_bytes: int) -> str:
    return exact_text(size_bytes).replace(" ", "")


def _tenth_above(points: float) -> float:
    return max(0.0, math.ceil(points * 10 - 1e-6) / 10)
