"""Writes a comparison of runs into a folder."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from dse.report.compare_page import comparison_page
from dse.report.compare_plot import attainment_figure, hypervolume_figure
from dse.report.compare_tables import (
    attainment_table,
    groups_table,
    hypervolume_table,
    runs_table,
)
from dse.report.compare_wording import band_text, box_text
from dse.report.style import PAPER_FORMATS, WIDTHS, Width, paper_style, save
from dse.report.write import ReportFiles, write_table
from dse.results.comparison import Comparison


def write_comparison(comparison: Comparison, *, out: Path) -> ReportFiles:
    """Write figures, tables and the page that shows them.

    The same runs give the same bytes.

    Args:
        comparison: the groups.
        out: the folder; created if it doesn't exist.
    """
    out.mkdir(parents=True, exist_ok=True)
    drawn: tuple[tuple[str, Callable[[Comparison, Width], Figure]], ...] = (
        ("attainment", lambda one, width: attainment_figure(one, width=width)),
        ("hypervolume", lambda one, width: hypervolume_figure(one, width=width)),
    )
    pictures: list[Path] = []
    with paper_style():
        for name, draw in drawn:
            for width in WIDTHS:
                stem = out / f"{name}-{width}"
                pictures += save(draw(comparison, width), stem, formats=PAPER_FORMATS)
    shown = [groups_table(comparison), runs_table(comparison)]
    tables = [*shown, attainment_table(comparison), hypervolume_table(comparison)]
    written = [path for table in tables for path in write_table(table, out)]
    index = out / "comparison.md"
    page = comparison_page(comparison, pictures=_texts(comparison), tables=shown)
    index.write_text(page, encoding="utf-8")
    return ReportFiles(index=index, pictures=tuple(pictures), tables=tuple(written))


def _texts(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Return name, title and explanation of each picture."""
    metric = comparison.runs[0].measure.title
    attainment = (
        f"The best {metric} within each size ({band_text(comparison)}), from the empirical "
        "attainment function of the runs (moocore). Baselines of the studies' own recipe are means "
        "over the runs that scored them."
    )
    hypervolume = (
        "Hypervolume of the front after each candidate that was trained for a short time, as a "
        f"share of the box ({box_text(comparison)}): mean over the runs and its 95 % interval. "
        "Candidates stopped at their rung count as trained; baselines that a search entered as "
        "trials count, too. A line ends with its group's shortest run."
    )
    return [
        ("attainment", "Attainment surfaces", attainment),
        ("hypervolume", "Hypervolume over trained candidates", hypervolume),
    ]
