"""The progress of the search: hypervolume over trials."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dse.report import wording
from dse.report.selection import baseline_hypervolume, hypervolume_shares
from dse.report.style import BLACK, BLUE, Width, add_caption, new_figure
from dse.results.records import RunRecords
from dse.units import format_size

_HEIGHT_INCHES: dict[Width, float] = {"column": 2.05, "page": 2.3}


def history_figure(records: RunRecords, *, width: Width) -> Figure | None:
    """Plot the hypervolume after each trial, with that of the baselines.

    Args:
        records: the run.
        width: width of a column or of the page.

    Returns:
        The figure; None if no trial is complete.
    """
    if not records.complete:
        return None
    figure = new_figure(width, height_inches=_HEIGHT_INCHES[width])
    draw_history(figure.add_subplot(), records)
    add_caption(figure, _caption(records))
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def draw_history(axes: Axes, records: RunRecords) -> bool:
    """Draw the hypervolume after each trial into axes of any size, without a legend.

    Returns:
        Whether there was anything to draw; if not, the axes are left as they are.
    """
    if not records.complete:
        return False
    shares = 100 * hypervolume_shares(records)
    baseline = baseline_hypervolume(records)
    counts = np.arange(1, len(shares) + 1)
    rises = np.flatnonzero(np.diff(shares, prepend=0.0) > 0)
    axes.plot(counts, shares, drawstyle="steps-post", color=BLUE, label="search")
    axes.plot(
        counts[rises],
        shares[rises],
        linestyle="none",
        marker="o",
        markersize=2.8,
        color=BLUE,
        clip_on=False,
        zorder=5,
        label="trial that adds to it",
    )
    if baseline is not None:
        axes.axhline(
            100 * baseline,
            color=BLACK,
            linewidth=0.8,
            linestyle=(0, (4, 2)),
            label="baselines alone",
        )
    axes.set_xlim(0, len(shares))
    _set_heights(axes, [*shares[shares > 0], *([] if baseline is None else [100 * baseline])])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Trials (of all states)")
    axes.set_ylabel("Hypervolume (% of box)")
    axes.grid(visible=True)
    return True


def _set_heights(axes: Axes, drawn: list[float]) -> None:
    """Fit the y-axis to the data, since late improvements are too small to see from zero."""
    low, high = min(drawn, default=0.0), max(drawn, default=1.0)
    room = 0.08 * max(high - low, 1.0)
    axes.set_ylim(max(0.0, low - room), high + room)


def _caption(records: RunRecords) -> list[str]:
    reference, measure = records.reference, records.measure
    best = "100 %" if measure.percent else f"{measure.ideal:g}"
    box = [f"box: {measure.title} from {measure.text(reference['accuracy'])} (chance) to {best}"]
    for name in records.study.search.objectives:
        if name != "accuracy":
            value = reference[name]
            text = format_size(value) if name.endswith("bytes") else f"{value:,.0f}"
            title = name.removesuffix("_bytes").replace("_", " ")
            box.append(f"box: {title} from {text} (unpruned) to 0")
    return [
        *wording.origin(records),
        wording.seeds(records),
        *box,
    ]
