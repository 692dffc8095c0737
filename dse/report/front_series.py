"""The series in the panels of the front: trials, baselines, finalists, and letters for recipes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.transforms import blended_transform_factory

from dse.candidate import Candidate
from dse.measures import Measure
from dse.report.labels import STAR_POINTS, Label
from dse.report.legend import letters
from dse.report.selection import Shown, attained, front_trials
from dse.report.style import BLACK, BLUE, GREEN, GREY, VERMILLION, YELLOW
from dse.report.wording import mib, short_recipe
from dse.results.candidate_records import BaselineRecord, FinalRecord, TrialRecord
from dse.results.records import RunRecords

_STAR: dict[str, Any] = {
    "marker": "*",
    "markerfacecolor": YELLOW,
    "markeredgecolor": BLACK,
    "markeredgewidth": 0.7,
    "linestyle": "none",
}
_RUG = 0.025  # height of the marks of untrained trials, as a share of the axes
_MOST_VECTORS = 2000  # more marks than this are pixels in vector formats
_OTHER_RECIPE = "other recipe"
# Marker by kind of baseline, the same in both panels. Hollow ones are larger than the dot of a
# trial, so that both are visible where a baseline is on the front.
_MARKERS: dict[str, dict[str, Any]] = {
    "unpruned": {"marker": "s", "markersize": 4.2, "color": BLACK},
    "uniform": {
        "marker": "s",
        "markersize": 5.0,
        "color": BLACK,
        "markerfacecolor": "white",
        "markeredgewidth": 0.7,
    },
    "peak-greedy": {
        "marker": "^",
        "markersize": 6.2,
        "color": GREEN,
        "markerfacecolor": "white",
        "markeredgewidth": 0.8,
    },
    "random": {
        "marker": "v",
        "markersize": 6.2,
        "color": GREY,
        "markerfacecolor": "white",
        "markeredgewidth": 0.8,
    },
    _OTHER_RECIPE: {"marker": "x", "markersize": 3.8, "color": "#404040", "markeredgewidth": 0.9},
}
_CURVES: dict[str, Any] = {"uniform": (0, (4, 2)), "peak-greedy": (0, (1, 1))}
KINDS = ("peak-greedy", "random", _OTHER_RECIPE, "uniform", "unpruned")
"""Kinds of baselines in the order in which they are drawn."""

_NAMES = {
    "unpruned": "unpruned",
    "peak-greedy": "peak-greedy (the paper's rule)",
    "random": "random ratios",
    _OTHER_RECIPE: "unpruned, other recipe",
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One marker with its candidate.

    Attributes:
        x: peak memory in MiB.
        y: the metric in its own unit.
        candidate: the candidate.
    """

    x: float
    y: float
    candidate: Candidate


def draw_search(axes: Axes, records: RunRecords) -> list[Point]:
    """Plot everything trained at `short`: trials, the front and baselines.

    Returns:
        The points of the front and of the baselines, each sorted by peak memory.
    """
    front = front_trials(records)
    _draw_trials(axes, records, front)
    return [
        *(_trial_point(trial, records) for trial in front),
        *draw_baselines(axes, records.baselines, records.measure),
    ]


def draw_baselines(
    axes: Axes, baselines: Sequence[BaselineRecord], measure: Measure
) -> list[Point]:
    """Plot baselines, each kind with its own marker; curves join those of one kind.

    Returns:
        Their points, kind by kind, each sorted by peak memory.
    """
    points: list[Point] = []
    kinds: dict[str, list[BaselineRecord]] = {}
    for baseline in baselines:
        kinds.setdefault(baseline_kind(baseline), []).append(baseline)
    for kind in KINDS:
        own = sorted(kinds.get(kind, ()), key=lambda one: one.peak_bytes)
        if not own:
            continue
        drawn = [_baseline_point(one, measure) for one in own]
        points += drawn
        whole = kinds.get("unpruned", []) if kind == "uniform" else []
        curve = [*drawn, *(_baseline_point(one, measure) for one in whole[:1])]
        axes.plot(
            [point.x for point in curve],
            [point.y for point in curve],
            linewidth=0.8,
            linestyle=_CURVES.get(kind, "none"),
            zorder=6 if kind == "unpruned" else 4,
            label=kind_title(kind, own),
            **_MARKERS[kind],
        )
    return points


def draw_finals(axes: Axes, records: RunRecords) -> list[Point]:
    """Plot everything trained at `full`, as mean and standard deviation over the seeds.

    Returns:
        The points, sorted by peak memory.
    """
    kinds = {one.candidate.digest: baseline_kind(one) for one in records.baselines}
    for final in records.finals:
        if final.trial is not None:
            kinds.pop(final.candidate.digest, None)  # a finalist of the search first
    finalist: dict[str, Any] = {
        "marker": "D",
        "markersize": 4.2,
        "markerfacecolor": VERMILLION,
        "markeredgecolor": BLACK,
        "markeredgewidth": 0.6,
    }
    for final in sorted(records.finals, key=lambda one: one.peak_bytes):
        kind = kinds.get(final.candidate.digest)
        name = "finalist" if kind is None else kind_title(kind, _of_kind(records, kind))
        spread = final.validation_spread
        style = finalist if kind is None else _MARKERS[kind]
        axes.errorbar(
            [mib(final.peak_bytes)],
            [records.measure.shown(final.validation_accuracy)],
            yerr=None if spread is None else [records.measure.shown_spread(spread)],
            linestyle="none",
            ecolor=BLACK,
            elinewidth=0.7,
            capsize=1.8,
            capthick=0.7,
            zorder=7,
            label=name,
            **style,
        )
    return [
        _final_point(final, records) for final in sorted(records.finals, key=lambda f: f.peak_bytes)
    ]


def draw_picked(axes: Axes, points: Sequence[Point], picked: Shown | None) -> list[Point]:
    """Mark the picked candidate if it is among the points, without hiding its own marker.

    Returns:
        The marked point in a list; empty if there is none.
    """
    for point in points:
        if picked is not None and point.candidate.digest == picked.candidate.digest:
            axes.plot([point.x], [point.y], markersize=STAR_POINTS, zorder=3.5, **_STAR)
            axes.plot([], [], markersize=6.5, label=picked.label, **_STAR)
            return [point]
    return []


def recipe_letters(panels: Sequence[Sequence[Point]]) -> dict[str, str]:
    """Assign a letter to each recipe other than the study's own, in order of appearance."""
    texts = [short_recipe(point.candidate) for points in panels for point in points]
    distinct = [text for text in dict.fromkeys(texts) if text]
    return dict(zip(distinct, letters(len(distinct)), strict=True))


def point_labels(points: Sequence[Point], key: Mapping[str, str]) -> list[Label]:
    """Return the letters to write beside the points of one panel."""
    named = [(point, key.get(short_recipe(point.candidate))) for point in points]
    return [Label(text=letter, x=point.x, y=point.y) for point, letter in named if letter]


def _draw_trials(axes: Axes, records: RunRecords, front: tuple[TrialRecord, ...]) -> None:
    members = {trial.number for trial in front}
    others = [_trial_point(one, records) for one in records.complete if one.number not in members]
    if others:
        axes.plot(
            [point.x for point in others],
            [point.y for point in others],
            linestyle="none",
            marker="o",
            markersize=2.6,
            markerfacecolor="white",
            markeredgecolor=GREY,
            markeredgewidth=0.5,
            zorder=3,
            rasterized=len(others) > _MOST_VECTORS,
            label="trial",
        )
    if front:
        # The best accuracy found at each peak or below it.
        steps = [_trial_point(trial, records) for trial in attained(front)]
        reach = max([steps[-1].x, *(mib(budget) for budget in records.study.search.budget_bytes)])
        axes.plot(
            [*(point.x for point in steps), min(reach, axes.get_xlim()[1])],
            [*(point.y for point in steps), steps[-1].y],
            drawstyle="steps-post",
            color=BLUE,
            linewidth=0.9,
            zorder=2,
        )
        axes.plot(
            [mib(trial.peak_bytes) for trial in front],
            [records.measure.shown(trial.accuracy or 0.0) for trial in front],
            linestyle="none",
            marker="o",
            markersize=3.8,
            color=BLUE,
            zorder=5,
            label="trial on the front",
        )
    infeasible = [mib(one.peak_bytes) for one in records.trials if one.state == "infeasible"]
    if infeasible:
        axes.plot(
            infeasible,
            [_RUG] * len(infeasible),
            transform=blended_transform_factory(axes.transData, axes.transAxes),
            linestyle="none",
            marker="|",
            markersize=4,
            markeredgewidth=0.6,
            color=GREY,
            zorder=3,
            rasterized=len(infeasible) > _MOST_VECTORS,
            label="over budget, not trained",
        )


def _trial_point(trial: TrialRecord, records: RunRecords) -> Point:
    accuracy = records.measure.shown(trial.accuracy or 0.0)
    return Point(x=mib(trial.peak_bytes), y=accuracy, candidate=trial.candidate)


def _baseline_point(baseline: BaselineRecord, measure: Measure) -> Point:
    accuracy = measure.shown(baseline.accuracy)
    return Point(x=mib(baseline.peak_bytes), y=accuracy, candidate=baseline.candidate)


def _final_point(final: FinalRecord, records: RunRecords) -> Point:
    accuracy = records.measure.shown(final.validation_accuracy)
    return Point(x=mib(final.peak_bytes), y=accuracy, candidate=final.candidate)


def baseline_kind(baseline: BaselineRecord) -> str:
    """Return the key of a baseline's marker; all changes of the recipe alone share one marker."""
    if short_recipe(baseline.candidate) or baseline.kind not in _MARKERS:
        return _OTHER_RECIPE
    return baseline.kind


def _of_kind(records: RunRecords, kind: str) -> list[BaselineRecord]:
    return [one for one in records.baselines if baseline_kind(one) == kind]


def kind_title(kind: str, baselines: Sequence[BaselineRecord]) -> str:
    """Return the text of a kind of baselines in the legend."""
    if kind == _OTHER_RECIPE and any(one.candidate.channels for one in baselines):
        return "other baseline"
    if kind != "uniform":
        return _NAMES[kind]
    ratios = sorted({one.ratio for one in baselines})
    span = " to ".join(f"{ratio:g}" for ratio in dict.fromkeys([ratios[0], ratios[-1]]))
    return f"uniform ratio, {span}"
