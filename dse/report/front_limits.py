"""The range of the front's axes: which sizes, budgets and accuracies are drawn."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dse.report.scales import Limits, memory_limits
from dse.report.wording import mib
from dse.results.candidate_records import BaselineRecord, TrialRecord
from dse.results.records import RunRecords

_FARTHEST_BUDGET = 1.3  # budgets beyond this multiple of the axis are listed, not drawn


@dataclass(frozen=True, kw_only=True)
class SizeAxis:
    """The axis of peak memory.

    Attributes:
        limits: its range.
        budgets: budgets within it, in bytes.
        beyond: budgets that are too far away to draw.
    """

    limits: Limits
    budgets: tuple[int, ...]
    beyond: tuple[int, ...]


def drawable(records: RunRecords) -> bool:
    """Whether anything can be drawn over peak memory."""
    return bool(len(short_points(records)) or infeasible_sizes(records))


def infeasible_sizes(records: RunRecords) -> list[float]:
    """Return the peaks, in MiB, of trials over every budget."""
    return [mib(trial.peak_bytes) for trial in records.trials if trial.state == "infeasible"]


def short_points(records: RunRecords) -> NDArray[np.float64]:
    """Return everything scored at `short` in MiB and the metric's own unit, (points, 2)."""
    shown = records.measure.shown
    scored: list[TrialRecord | BaselineRecord] = [*records.complete, *records.baselines]
    points = [(mib(one.peak_bytes), shown(one.accuracy or 0.0)) for one in scored]
    return np.array(points, dtype=np.float64).reshape(-1, 2)


def final_spans(records: RunRecords) -> NDArray[np.float64]:
    """Return means and ends of the error bars at `full` in the metric's unit, (values,)."""
    return np.array(
        [
            records.measure.shown(
                final.validation_accuracy + part * (final.validation_spread or 0.0)
            )
            for final in records.finals
            for part in (-1, 0, 1)
        ]
    )


def size_axis(records: RunRecords) -> SizeAxis:
    """Return the axis that shows all sizes, and the budgets that aren't far away.

    Args:
        records: a run of which something can be drawn.
    """
    sizes = [*short_points(records)[:, 0], *infeasible_sizes(records)]
    limits = memory_limits(sizes)
    low, high = limits.low, limits.high
    budgets = records.study.search.budget_bytes
    near = [mib(budget) for budget in budgets if mib(budget) <= high * _FARTHEST_BUDGET]
    if near and max(near) > high / 1.02:
        high = max(near) * 1.02
    if near and min(near) < low * 1.02:
        low = min(near) / 1.1
    return SizeAxis(
        limits=replace(limits, low=low, high=high),
        budgets=tuple(budget for budget in budgets if mib(budget) <= high),
        beyond=tuple(budget for budget in budgets if mib(budget) > high),
    )
