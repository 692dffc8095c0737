"""The front: accuracy over peak memory, of everything that was tried."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import blended_transform_factory
from numpy.typing import NDArray

from dse.report import wording
from dse.report.labels import Label, label_lines, place_labels
from dse.report.selection import Shown, attained, front_trials
from dse.report.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    YELLOW,
    Width,
    add_caption,
    new_figure,
)
from dse.report.wording import mib
from dse.results.records import BaselineRecord, FinalRecord, RunRecords, TrialRecord

_HEIGHT_INCHES: dict[Width, float] = {"column": 2.85, "page": 3.4}
_LEGEND_COLUMNS: dict[Width, int] = {"column": 2, "page": 4}
_WIDEST_LINEAR = 20  # beyond this ratio of largest to smallest, memory is drawn logarithmically
_FARTHEST_BUDGET = 1.3  # budgets beyond this multiple of what is drawn are only named
_STAR_POINTS = 13
_STAR: dict[str, Any] = {
    "marker": "*",
    "markerfacecolor": YELLOW,
    "markeredgecolor": BLACK,
    "markeredgewidth": 0.8,
}
_RUG = 0.025  # height of the marks of untrained trials, as a share of the axes


def front_figure(records: RunRecords, *, width: Width, picked: Shown | None) -> Figure | None:
    """Draw every trial, the front, the finalists, the baselines and the budgets.

    Args:
        records: the run.
        width: of a column or of the page.
        picked: the candidate to highlight.

    Returns:
        The figure; None if there is nothing to draw yet.
    """
    infeasible = [trial.peak_bytes for trial in records.trials if trial.state == "infeasible"]
    drawn = _points(records)
    if not len(drawn) and not infeasible:
        return None
    figure = new_figure(width, height_inches=_HEIGHT_INCHES[width])
    axes = figure.add_subplot()
    _set_limits(axes, drawn, infeasible_mib=[mib(peak) for peak in infeasible])
    beyond = _draw_budgets(axes, records)
    _draw_trials(axes, records, infeasible)
    _draw_baselines(axes, records)
    _draw_finals(axes, records.finals)
    if picked is not None:
        axes.plot(
            [mib(picked.peak_bytes)],
            [100 * picked.accuracy],
            linestyle="none",
            markersize=_STAR_POINTS,
            zorder=4.5,  # a halo: the marker that it singles out lies on it
            **_STAR,
        )
        axes.plot([], [], linestyle="none", markersize=7, label=picked.label, **_STAR)
    axes.set_xlabel("Peak memory of one training step (MiB)")
    axes.set_ylabel("Accuracy (%)")
    axes.grid(visible=True)
    add_caption(figure, _caption(records, beyond))
    figure.legend(loc="outside lower center", ncols=_LEGEND_COLUMNS[width])
    figure.draw_without_rendering()
    label_lines(axes, *_drawn_budgets(records, axes))
    figure.draw_without_rendering()
    place_labels(axes, _labels(records, picked), markers=drawn, lines=_line_points(axes))
    return figure


def _points(records: RunRecords) -> NDArray[np.float64]:
    """All that has an accuracy: MiB and percent, shape (points, 2)."""
    points = [(trial.peak_bytes, trial.accuracy) for trial in records.complete]
    points += [(baseline.peak_bytes, baseline.accuracy) for baseline in records.baselines]
    for final in records.finals:
        mean, spread = final.validation_accuracy, final.validation_spread or 0.0
        points += [(final.peak_bytes, mean + part * spread) for part in (-1, 0, 1)]
    array = np.array(points, dtype=np.float64).reshape(-1, 2)
    return array * [1 / wording.BYTES_PER_MIB, 100]


def _set_limits(axes: Axes, drawn: NDArray[np.float64], *, infeasible_mib: Sequence[float]) -> None:
    sizes = np.concatenate([drawn[:, 0], infeasible_mib])
    smallest, largest = float(sizes.min()), float(sizes.max())
    if largest > _WIDEST_LINEAR * smallest > 0:
        axes.set_xscale("log")
        axes.set_xlim(smallest / 1.15, largest * 1.15)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, largest * 1.05)
    if len(drawn):
        low, high = float(drawn[:, 1].min()), float(drawn[:, 1].max())
        room = max(high - low, 1.0)
        axes.set_ylim(low - 0.12 * room, high + 0.08 * room)
    else:
        axes.set_ylim(0, 100)


def _drawn_budgets(records: RunRecords, axes: Axes) -> tuple[list[float], list[str]]:
    edge = axes.get_xlim()[1]
    budgets = [budget for budget in records.study.search.budget_bytes if mib(budget) <= edge]
    return [mib(budget) for budget in budgets], [wording.size_label(b) for b in budgets]


def _draw_budgets(axes: Axes, records: RunRecords) -> list[int]:
    """Draw the budgets as vertical lines; return those too far off, which aren't drawn."""
    budgets = records.study.search.budget_bytes
    low, high = axes.get_xlim()
    near = [mib(budget) for budget in budgets if mib(budget) <= high * _FARTHEST_BUDGET]
    if near and max(near) > high / 1.02:
        high = max(near) * 1.02
    if near and min(near) < low * 1.02:
        low = min(near) / 1.1
    axes.set_xlim(low, high)
    for position in near:
        axes.axvline(position, color=BLACK, linewidth=0.7, linestyle=(0, (1, 1.5)), zorder=1)
    return [budget for budget in budgets if mib(budget) > high]


def _draw_trials(axes: Axes, records: RunRecords, infeasible: Sequence[int]) -> None:
    front = front_trials(records)
    members = {trial.number for trial in front}
    others = [trial for trial in records.complete if trial.number not in members]
    if others:
        axes.plot(
            *_coordinates(others),
            linestyle="none",
            marker="o",
            markersize=3,
            markerfacecolor="white",
            markeredgecolor=GREY,
            markeredgewidth=0.6,
            zorder=3,
            label="trial, short",
        )
    if front:
        # What a budget buys: the best accuracy found at that size or below.
        sizes, accuracies = _coordinates(attained(front))
        reach = max([sizes[-1], *(mib(budget) for budget in records.study.search.budget_bytes)])
        axes.plot(
            [*sizes, min(reach, axes.get_xlim()[1])],
            [*accuracies, accuracies[-1]],
            drawstyle="steps-post",
            color=BLUE,
            linewidth=0.9,
            zorder=2,
        )
        axes.plot(
            *_coordinates(front),
            linestyle="none",
            marker="o",
            markersize=3.6,
            color=BLUE,
            zorder=5,
            label="trial on the front, short",
        )
    if infeasible:
        axes.plot(
            [mib(peak) for peak in infeasible],
            [_RUG] * len(infeasible),
            transform=blended_transform_factory(axes.transData, axes.transAxes),
            linestyle="none",
            marker="x",
            markersize=3,
            markeredgewidth=0.6,
            color=GREY,
            zorder=3,
            label="trial over budget, not trained",
        )


def _coordinates(trials: Sequence[TrialRecord]) -> tuple[list[float], list[float]]:
    return (
        [mib(trial.peak_bytes) for trial in trials],
        [100 * (trial.accuracy or 0.0) for trial in trials],
    )


def _draw_baselines(axes: Axes, records: RunRecords) -> None:
    for kind, label, colour, marker in (
        ("peak-greedy", "peak-greedy (the paper's rule), short", GREEN, "^"),
        ("random", "random ratios, short", GREY, "v"),
    ):
        own = [baseline for baseline in records.baselines if baseline.kind == kind]
        if own:
            axes.plot(
                [mib(baseline.peak_bytes) for baseline in own],
                [100 * baseline.accuracy for baseline in own],
                color=colour,
                linewidth=0.8,
                linestyle="none" if kind == "random" else (0, (1, 1)),
                marker=marker,
                markersize=4.2,
                markerfacecolor="white",
                markeredgewidth=0.8,
                zorder=4,
                label=label,
            )
    recipes = _recipes(records)
    if recipes:
        axes.plot(
            [mib(baseline.peak_bytes) for baseline in recipes],
            [100 * baseline.accuracy for baseline in recipes],
            color=GREY,
            linestyle="none",
            marker="x",
            markersize=3.6,
            markeredgewidth=0.9,
            zorder=4,
            label="unpruned, another recipe, short",
        )
    uniform = sorted(
        (baseline for baseline in records.baselines if baseline.kind == "uniform"),
        key=lambda baseline: baseline.ratio,
    )
    unpruned = records.unpruned
    curve = [*([unpruned] if unpruned else []), *uniform]
    if uniform:
        axes.plot(
            [mib(baseline.peak_bytes) for baseline in curve],
            [100 * baseline.accuracy for baseline in curve],
            color=BLACK,
            linewidth=0.8,
            linestyle=(0, (4, 2)),
            marker="s",
            markersize=3.2,
            markerfacecolor="white",
            markeredgewidth=0.7,
            zorder=4,
            label="uniform (pruning ratio), short",
        )
    if unpruned:
        axes.plot(
            [mib(unpruned.peak_bytes)],
            [100 * unpruned.accuracy],
            linestyle="none",
            marker="s",
            markersize=4.2,
            color=BLACK,
            zorder=6,
            label="unpruned, short",
        )


def _recipes(records: RunRecords) -> list[BaselineRecord]:
    """The baselines that change the recipe in place of the network."""
    return [one for one in records.baselines if one.candidate.recipe_text]


def _draw_finals(axes: Axes, finals: Sequence[FinalRecord]) -> None:
    for label, marker, face, chosen in (
        ("finalist, full", "D", VERMILLION, [f for f in finals if f.trial is not None]),
        ("baseline, full", "D", "white", [f for f in finals if f.trial is None]),
    ):
        if not chosen:
            continue
        axes.errorbar(
            [mib(final.peak_bytes) for final in chosen],
            [100 * final.validation_accuracy for final in chosen],
            # One seed has no spread, so that NaN draws no bar.
            yerr=[100 * _or_nan(final.validation_spread) for final in chosen],
            linestyle="none",
            marker=marker,
            markersize=4,
            markerfacecolor=face,
            markeredgecolor=BLACK,
            markeredgewidth=0.6,
            ecolor=BLACK,
            elinewidth=0.7,
            capsize=1.8,
            capthick=0.7,
            zorder=7,
            label=label,
        )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _labels(records: RunRecords, picked: Shown | None) -> list[Label]:
    labels = []
    if picked is not None:
        x, y = mib(picked.peak_bytes), 100 * picked.accuracy
        half = _STAR_POINTS / 2
        labels.append(Label(text="picked", x=x, y=y, weight="bold", clearance=half))
    for baseline in records.baselines:
        if baseline.kind not in ("unpruned", "uniform"):
            continue  # the legend names these
        text = "unpruned" if baseline.kind == "unpruned" else f"{baseline.ratio:g}"
        labels.append(Label(text=text, x=mib(baseline.peak_bytes), y=100 * baseline.accuracy))
    for baseline in _recipes(records):
        text = baseline.candidate.recipe_text
        labels.append(Label(text=text, x=mib(baseline.peak_bytes), y=100 * baseline.accuracy))
    return labels


def _line_points(axes: Axes) -> NDArray[np.float64]:
    """Points along every line, in data coordinates, shape (points, 2)."""
    pieces = [np.empty((0, 2))]
    for line in axes.lines:
        data = np.asarray(line.get_xydata(), dtype=np.float64)
        if line.get_linestyle() == "None" or len(data) < 2:  # noqa: PLR2004 -- markers alone
            continue
        if line.get_transform() != axes.transData:  # a budget, from bottom to top
            data = np.column_stack([data[:, 0], axes.get_ylim()])
        if line.get_drawstyle() == "steps-post":
            corners = np.column_stack([data[1:, 0], data[:-1, 1]])
            data = np.insert(data, np.arange(1, len(data)), corners, axis=0)
        share = np.linspace(0, 1, 60)[:, np.newaxis, np.newaxis]
        pieces.append((data[:-1] + share * (data[1:] - data[:-1])).reshape(-1, 2))
    return np.concatenate(pieces)


def _caption(records: RunRecords, beyond: Sequence[int]) -> list[str]:
    parts = [
        *wording.origin(records),
        f"study seed {records.study.seed}",
        "short: selection part",
    ]
    if records.finals:
        seeds = wording.final_seeds(records)
        spread = "" if seeds == "1 seed" else "mean ± s.d. of "
        parts.append(f"full: validation part, {spread}{seeds}")
    if beyond:
        parts.append(f"budgets beyond: {', '.join(wording.size_label(one) for one in beyond)}")
    return parts
