"""The tables of a comparison: its groups, its runs, and what its figures show.

CSV files hold raw values: bytes, seconds, shares and accuracies from 0 to 1. Markdown and LaTeX
show MiB and percent.
"""

import math

import numpy as np

from dse.measures import Measure
from dse.report.compare_plot import history_band
from dse.report.compare_wording import seeds_text
from dse.report.render import NOTHING, Cell, Column, Row, Table
from dse.report.wording import size_label
from dse.results.comparison import Comparison, Estimate
from dse.results.grouping import Group

_BY_SURFACE = 50.0


def groups_table(comparison: Comparison) -> Table:
    """Build the table of groups: hypervolume, ratio to the first, best accuracy within budgets."""
    budgets = comparison.budgets
    rows = [_group_row(comparison, group) for group in comparison.groups]
    return Table(
        name="groups",
        fields=[
            "label",
            "runs",
            "seeds",
            "trained_fewest",
            "trained_most",
            *_estimate_fields("hypervolume"),
            *_estimate_fields("ratio_to_first"),
            *(
                field
                for size in budgets
                for field in (*_estimate_fields(_within(size)), f"{_within(size)}_runs")
            ),
        ],
        rows=rows,
        columns=[
            Column(title="Method", show=lambda row: str(row["label"]), align="left"),
            Column(title="Runs", show=lambda row: str(row["runs"])),
            Column(title="Trained", show=_trained),
            Column(
                title="Hypervolume (%)",
                show=lambda row: _estimate_text(row, "hypervolume", scale=100, places=1),
            ),
            *(
                [
                    Column(
                        title="Ratio to first",
                        show=lambda row: _estimate_text(row, "ratio_to_first", places=2),
                    )
                ]
                if len(comparison.groups) > 1
                else []
            ),
            *budget_columns(comparison),
        ],
    )


def budget_columns(comparison: Comparison) -> list[Column]:
    """Return columns of the best accuracy within each budget that all runs share."""
    measure = comparison.runs[0].measure
    return [_within_column(size, measure) for size in comparison.budgets]


def runs_table(comparison: Comparison) -> Table:
    """Build the table of single runs."""
    budgets = comparison.budgets
    measure = comparison.runs[0].measure
    rows: list[Row] = []
    for group in comparison.groups:
        shares = comparison.hypervolumes(group)
        best = {size: comparison.best_within(group, size) for size in budgets}
        for number, run in enumerate(group.runs):
            rows.append(
                {
                    "group": group.label,
                    "run": run.folder.name,
                    "seed": run.study.seed,
                    "trained": len(run.trained),
                    "trials": len(run.trials),
                    "trial_seconds": sum(trial.wall_seconds for trial in run.trials),
                    "unpruned_peak_bytes": run.unpruned_peak_bytes,
                    "learning_rate": run.study.training.learning_rate,
                    "hypervolume": float(shares[number]),
                    **{_within(size): _known(best[size][number]) for size in budgets},
                }
            )
    return Table(
        name="runs",
        fields=list(rows[0]),
        rows=rows,
        columns=[
            Column(title="Method", show=lambda row: str(row["group"]), align="left"),
            Column(title="Run", show=lambda row: str(row["run"]), align="left"),
            Column(title="Seed", show=lambda row: str(row["seed"])),
            Column(title="Trained", show=lambda row: str(row["trained"])),
            Column(
                title="Hypervolume (%)", show=lambda row: f"{100 * _number(row, 'hypervolume'):.1f}"
            ),
            *(_single_column(size, measure) for size in budgets),
        ],
    )


def attainment_table(comparison: Comparison) -> Table:
    """Build the corners of all drawn surfaces; it is written as CSV only."""
    best, worst = comparison.band_percents
    rows: list[Row] = []
    for group in comparison.groups:
        percents = (best, _BY_SURFACE, worst) if len(group.runs) > 1 else (_BY_SURFACE,)
        for percent in percents:
            rows += [
                {
                    "group": group.label,
                    "surface": _surface_name(percent),
                    "peak_bytes": int(peak_bytes),
                    "accuracy": float(accuracy),
                }
                for peak_bytes, accuracy in comparison.surface(group, percent=percent)
            ]
    return Table(name="attainment", fields=list(rows[0]), rows=rows)


def hypervolume_table(comparison: Comparison) -> Table:
    """Build the drawn hypervolumes after each trained candidate; it is written as CSV only."""
    rows: list[Row] = []
    for group in comparison.groups:
        lines = zip(*history_band(comparison, group), strict=True)
        several = len(group.runs) > 1
        for count, (mean, low, high) in enumerate(lines, start=1):
            rows.append(
                {
                    "group": group.label,
                    "trained": count,
                    "hypervolume_mean": float(mean),
                    "hypervolume_low": float(low) if several else None,
                    "hypervolume_high": float(high) if several else None,
                }
            )
    return Table(name="hypervolume", fields=list(rows[0]), rows=rows)


def _group_row(comparison: Comparison, group: Group) -> Row:
    counts = [len(run.trained) for run in group.runs]
    row: dict[str, Cell] = {
        "label": group.label,
        "runs": len(group.runs),
        "seeds": seeds_text(group),
        "trained_fewest": min(counts),
        "trained_most": max(counts),
        **_estimate_cells("hypervolume", comparison.hypervolume(group)),
        **_estimate_cells("ratio_to_first", comparison.ratio(group)),
    }
    for size in comparison.budgets:
        best = comparison.best_within(group, size)
        reached = best[~np.isnan(best)]
        whole = len(reached) == len(best)  # a mean over other runs would flatter the group
        name = _within(size)
        row |= _estimate_cells(name, Estimate.of(reached) if whole else None)
        row[f"{name}_runs"] = len(reached)
    return row


def _within(size_bytes: int) -> str:
    return f"accuracy_within_{size_bytes}_bytes"


def _estimate_fields(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"


def _estimate_cells(name: str, found: Estimate | None) -> dict[str, Cell]:
    low, high = (None, None) if found is None or found.interval is None else found.interval
    cells = (None if found is None else found.mean, low, high)
    return dict(zip(_estimate_fields(name), cells, strict=True))


def _estimate_text(row: Row, name: str, *, scale: float = 1.0, places: int) -> str:
    """Write a mean with its interval: "41.2 (39.8 to 42.6)"."""
    if row[name] is None:
        return NOTHING
    mean, low, high = (
        None if row[field] is None else f"{scale * _number(row, field):.{places}f}"
        for field in _estimate_fields(name)
    )
    return f"{mean}" if low is None else f"{mean} ({low} to {high})"


def _within_column(size_bytes: int, measure: Measure) -> Column:
    name = _within(size_bytes)

    def show(row: Row) -> str:
        if row[name] is None and row[f"{name}_runs"]:
            return f"{row[f'{name}_runs']} of {row['runs']} runs fit"
        if row[name] is None:
            return NOTHING
        mean, low, high = (row[field] for field in _estimate_fields(name))
        text = measure.number(_number(row, name))
        if low is None or high is None or mean is None:
            return text
        ends = sorted((_number(row, one) for one in _estimate_fields(name)[1:]), key=measure.shown)
        return f"{text} ({measure.number(ends[0])} to {measure.number(ends[1])})"

    title = f"{measure.short_title} within {size_label(size_bytes)}{measure.unit}"
    return Column(title=title, show=show)


def _single_column(size_bytes: int, measure: Measure) -> Column:
    name = _within(size_bytes)

    def show(row: Row) -> str:
        return NOTHING if row[name] is None else measure.number(_number(row, name))

    title = f"{measure.short_title} within {size_label(size_bytes)}{measure.unit}"
    return Column(title=title, show=show)


def _trained(row: Row) -> str:
    few, most = row["trained_fewest"], row["trained_most"]
    return str(few) if few == most else f"{few} to {most}"


def _surface_name(percent: float) -> str:
    if percent == _BY_SURFACE:
        return "half of the runs"
    names = {0.0: "best run", 100.0: "all runs", 25.0: "a quarter", 75.0: "three quarters"}
    return names[percent]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _number(row: Row, field: str) -> float:
    value = row[field]
    if not isinstance(value, int | float):
        raise TypeError(f"{field} is {value!r}, not a number")
    return value
