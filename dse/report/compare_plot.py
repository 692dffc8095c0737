"""Groups of runs in one figure: attainment surfaces, and hypervolume over trained candidates."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from dse.measures import Measure
from dse.report import wording
from dse.report.compare_wording import band_text, box_text, fidelity_text, groups_text
from dse.report.front_series import draw_baselines
from dse.report.legend import add_legend
from dse.report.scales import memory_limits, set_memory_scale, set_score_scale
from dse.report.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    SKY,
    VERMILLION,
    Width,
    add_caption,
    drawable,
    new_figure,
)
from dse.report.wording import mib
from dse.results.candidate_records import BaselineRecord
from dse.results.comparison import Comparison
from dse.results.grouping import Group
from dse.results.seeds import mean_interval

_HEIGHT_INCHES: dict[Width, float] = {"column": 2.15, "page": 2.6}
_FIRST_SHOWN = 5  # candidates after which the hypervolume begins to be of interest
_BAND = 0.2  # opacity

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Look:
    """How the lines of one group are drawn."""

    colour: str
    dashes: Any


_LOOKS = tuple(
    Look(colour=colour, dashes=dashes)
    for dashes in ("-", (0, (5, 2)), (0, (1, 1.2)))
    for colour in (BLUE, VERMILLION, GREEN, PURPLE, BLACK, SKY, GREY)
)
# Neighbours differ in dashes too, so that a print in grey can be read.
_ORDER = tuple(
    _LOOKS[7 * ((number + number // 7) % 3) + number % 7] for number in range(len(_LOOKS))
)


def look_of(number: int) -> Look:
    """Return the look of the group of a number, from 0."""
    return _ORDER[number % len(_ORDER)]


def attainment_figure(comparison: Comparison, *, width: Width) -> Figure:
    """Plot each group's median attainment surface with a band over its runs.

    Args:
        comparison: the groups.
        width: width of a column or of the page.
    """
    caption = attainment_caption(comparison)
    return _figure(comparison, draw_attainment, caption=caption, width=width)


def hypervolume_figure(comparison: Comparison, *, width: Width) -> Figure:
    """Plot each group's mean hypervolume over the candidates trained so far, with its interval.

    Args:
        comparison: the groups.
        width: width of a column or of the page.
    """
    caption = hypervolume_caption(comparison)
    return _figure(comparison, draw_hypervolume, caption=caption, width=width)


def _figure(
    comparison: Comparison,
    draw: Callable[[Axes, Comparison], None],
    *,
    caption: Sequence[str],
    width: Width,
) -> Figure:
    figure = new_figure(width, height_inches=_HEIGHT_INCHES[width])
    draw(figure.add_subplot(), comparison)
    add_caption(figure, caption)
    add_legend(figure, [])
    return figure


def attainment_caption(comparison: Comparison) -> list[str]:
    """Return the parts of the caption of attainment surfaces."""
    return [*_about(comparison), fidelity_text(comparison), band_text(comparison)]


def hypervolume_caption(comparison: Comparison) -> list[str]:
    """Return the parts of the caption of hypervolumes."""
    parts = ["after the short training", box_text(comparison), "mean; band: 95 % t interval"]
    return [*_about(comparison), *parts]


def draw_attainment(axes: Axes, comparison: Comparison) -> None:
    """Draw attainment surfaces and the baselines of all runs into axes of any size."""
    medians = [comparison.surface(group, percent=50.0) for group in comparison.groups]
    bands = [_band(comparison, group) for group in comparison.groups]
    baselines = shared_baselines(comparison)
    largest = max([comparison.reference_peak_bytes, *(one.peak_bytes for one in baselines)])
    smallest = min(float(surface[:, 0].min()) for pair in bands for surface in pair)
    set_memory_scale(axes, memory_limits([mib(smallest), mib(largest)]))
    values = [one[:, 1] for one in medians] + [one[:, 1] for pair in bands for one in pair]
    values.append(np.array([one.accuracy for one in baselines]))
    measure = comparison.runs[0].measure
    shown = np.array([measure.shown(one) for one in np.concatenate(values).tolist()])
    set_score_scale(axes, shown, measure)
    edge, floor = axes.get_xlim()[1], axes.get_ylim()[0]
    for number, (group, median) in enumerate(zip(comparison.groups, medians, strict=True)):
        look = look_of(number)
        if len(group.runs) > 1:
            _fill(axes, bands[number], measure, colour=look.colour, edge=edge, floor=floor)
        sizes, scores = _steps(median, measure, edge=edge)
        axes.plot(
            sizes,
            scores,
            drawstyle="steps-post",
            color=look.colour,
            linestyle=look.dashes,
            linewidth=1.1,
            zorder=3,
            label=drawable(group.label),
        )
    draw_baselines(axes, baselines, measure)
    axes.set_xlabel("Peak memory of one training step (MiB)")
    axes.set_ylabel(f"{wording.metric_title(measure)}{measure.unit}")
    axes.grid(visible=True)


def draw_hypervolume(axes: Axes, comparison: Comparison) -> None:
    """Draw hypervolumes over trained candidates into axes of any size."""
    shown = []
    for number, group in enumerate(comparison.groups):
        look = look_of(number)
        mean, low, high = history_band(comparison, group)
        counts = np.arange(1, len(mean) + 1)
        axes.plot(
            counts,
            100 * mean,
            color=look.colour,
            linestyle=look.dashes,
            linewidth=1.1,
            label=drawable(group.label),
        )
        axes.fill_between(
            counts, 100 * low, 100 * high, color=look.colour, alpha=_BAND, linewidth=0
        )
        late = slice(min(_FIRST_SHOWN, len(mean)) - 1, None)
        shown += [100 * mean[late], 100 * np.clip(high[late], 0, 1)]
    drawn = np.concatenate(shown)
    room = 0.08 * max(float(np.ptp(drawn)), 1.0)
    axes.set_ylim(max(0.0, float(drawn.min()) - room), float(drawn.max()) + room)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Candidates trained")
    axes.set_ylabel("Hypervolume (% of box)")
    axes.grid(visible=True)


def history_band(comparison: Comparison, group: Group) -> tuple[Floats, Floats, Floats]:
    """Return mean and interval of the hypervolume after each trained candidate, as shares.

    Returns:
        Mean, lower and upper end, (candidates,) each; all the same where no interval exists.
    """
    histories = comparison.histories(group)
    mean = histories.mean(axis=0)
    ends = [
        mean_interval(column.tolist()) or (float(middle), float(middle))
        for column, middle in zip(histories.T, mean, strict=True)
    ]
    low, high = np.array(ends).reshape(-1, 2).T
    return mean, low, high


def shared_baselines(comparison: Comparison) -> list[BaselineRecord]:
    """Return baselines of the study's own recipe, each with its mean over the runs that have it.

    At `full`, these are the ones that were trained in full.
    """
    found: dict[tuple[str, str, int], list[BaselineRecord]] = {}
    for run in comparison.runs:
        for one in run.baselines:
            if one.candidate.recipe_text:
                continue
            final = run.final_of(one.candidate)
            if comparison.fidelity == "full" and final is None:
                continue
            score = (
                one.accuracy
                if comparison.fidelity == "short" or final is None
                else (final.validation_accuracy)
            )
            key = (one.label, one.candidate.digest, one.peak_bytes)
            found.setdefault(key, []).append(replace(one, accuracy=score))
    return [
        replace(members[0], accuracy=statistics.fmean(one.accuracy for one in members))
        for members in found.values()
    ]


def _band(comparison: Comparison, group: Group) -> tuple[Floats, Floats]:
    """Return the band's upper and lower surface."""
    best, worst = comparison.band_percents
    return comparison.surface(group, percent=best), comparison.surface(group, percent=worst)


def _steps(surface: Floats, measure: Measure, *, edge: float) -> tuple[Floats, Floats]:
    """Return a surface's corners in MiB and the metric's unit, continued to the right edge."""
    sizes = np.append(surface[:, 0] / wording.BYTES_PER_MIB, edge)
    scores = np.array([measure.shown(one) for one in [*surface[:, 1], surface[-1, 1]]])
    return sizes, scores


def _fill(
    axes: Axes,
    band: tuple[Floats, Floats],
    measure: Measure,
    *,
    colour: str,
    edge: float,
    floor: float,
) -> None:
    """Fill between two surfaces; where the lower one attains nothing, down to the floor."""
    (upper_x, upper_y), (lower_x, lower_y) = (_steps(one, measure, edge=edge) for one in band)
    sizes = np.unique(np.concatenate([upper_x, lower_x]))
    high = upper_y[np.searchsorted(upper_x, sizes, side="right") - 1]
    place = np.searchsorted(lower_x, sizes, side="right") - 1
    low = np.where(place < 0, floor, lower_y[place])
    axes.fill_between(
        sizes, low, high, step="post", color=colour, alpha=_BAND, linewidth=0, zorder=2
    )


def _about(comparison: Comparison) -> list[str]:
    first = comparison.runs[0]
    study = first.study
    return [
        f"{study.network.name} on {study.data.name}",
        f"convention {first.convention}",
        *groups_text(comparison),
    ]
