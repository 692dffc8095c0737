"""Writes a run's report into a folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from dse.candidate import Candidate
from dse.memory.model import MemoryModel
from dse.metrics import TITLES
from dse.report.front_plot import front_figure
from dse.report.history_plot import history_figure
from dse.report.memory_plot import Panel, memory_figure
from dse.report.page import Picture, page
from dse.report.ratios_plot import ratios_figure
from dse.report.recalls_table import recalls_table
from dse.report.render import Table, to_csv, to_latex, to_markdown
from dse.report.selection import Shown, shown_candidate
from dse.report.style import Width, paper_style, save
from dse.report.tables import baselines_table, finalists_table, front_table, trials_table
from dse.report.wording import finalists_note, metric_title, origin, short_and_full
from dse.results.records import RunRecords

_WIDTHS: tuple[Width, ...] = ("column", "page")
_NO_TRIAL = "no trial is complete yet"

Models = Callable[[Candidate], MemoryModel]


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """The files that were written.

    Attributes:
        index: the page that links all others.
        pictures: PDF and PNG of each plot, in the widths of a column and of the page.
        tables: CSV, Markdown and LaTeX files.
    """

    index: Path
    pictures: tuple[Path, ...]
    tables: tuple[Path, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file, the index first."""
        return (self.index, *self.pictures, *self.tables)


def write_report(
    records: RunRecords, *, models: Models, out: Path, picked: Candidate | None = None
) -> ReportFiles:
    """Write plots, tables and the page that shows them.

    The same records give the same bytes. Plots that have nothing to show yet are left out, and the
    page says why.

    Args:
        records: the run.
        models: returns a candidate's memory model, for the plot of memory over a step.
        out: the folder; created if it doesn't exist.
        picked: the candidate to highlight; without one, the front's knee is compared with the
            unpruned network.

    Raises:
        RunError: if the picked candidate was never trained in this run.
    """
    shown = shown_candidate(records, picked=picked)
    highlighted = shown if picked is not None else None
    out.mkdir(parents=True, exist_ok=True)
    pictures = _write_pictures(records, models, out, shown=shown, highlighted=highlighted)
    tables = _tables(records, picked)
    written = [path for _, _, table in tables for path in write_table(table, out)]
    index = out / "report.md"
    index.write_text(page(records, pictures=pictures, tables=tables), encoding="utf-8")
    return ReportFiles(
        index=index,
        pictures=tuple(out / path for picture in pictures for path in picture.files),
        tables=tuple(written),
    )


def _write_pictures(
    records: RunRecords,
    models: Models,
    out: Path,
    *,
    shown: Shown | None,
    highlighted: Shown | None,
) -> list[Picture]:
    panels = _panels(records, models, shown)
    networks = "; ".join(panel.label for panel in panels)
    metric = TITLES[records.metric]
    return [
        _picture(
            out,
            name="front",
            title="Front",
            text=f"{metric_title(records.metric)} over predicted peak memory. One panel shows the "
            "search: every candidate after the short training, on the selection part. The stepped "
            f"line is the best {metric} that the search found within each size; the dashed curve "
            "prunes every group by one ratio. The other panel shows the best of these candidates "
            "trained in full, on the validation part, with the standard deviation over seeds as "
            "bars. Longer training raises the figures, so the panels have scales of their own. "
            "Dotted lines are the budgets. A letter marks a recipe that differs from the study's; "
            "the key is below the panels.",
            missing="no trial and no baseline is there yet",
            draw=lambda width: front_figure(records, width=width, picked=highlighted),
        ),
        _picture(
            out,
            name="hypervolume",
            title="Hypervolume over trials",
            text="Hypervolume that the search's front dominates after each trial, as a share of "
            f"the box between the ideal point and the reference ({metric} by chance, costs of the "
            "unpruned network). Dashed: the same for the baselines alone.",
            missing=_NO_TRIAL,
            draw=lambda width: history_figure(records, width=width),
        ),
        _picture(
            out,
            name="ratios",
            title="Pruning ratios along the front",
            text="One row for each channel group in execution order, one column for each member of "
            "the front by peak memory. The darker a cell, the more of the group is pruned. A star "
            "marks the picked candidate.",
            missing=_NO_TRIAL,
            draw=lambda width: ratios_figure(records, width=width, picked=highlighted),
        ),
        _picture(
            out,
            name="memory",
            title="Memory over one training step",
            text=f"Predicted bytes held, moment by moment: {networks}. The triangle marks the "
            "peak; the line under each title says in which operator and module it happens.",
            missing="",
            draw=lambda width: memory_figure(panels, caption=origin(records), width=width),
        ),
    ]


def _picture(
    out: Path,
    *,
    name: str,
    title: str,
    text: str,
    missing: str,
    draw: Callable[[Width], Figure | None],
) -> Picture:
    files: list[Path] = []
    with paper_style():
        for width in _WIDTHS:
            figure = draw(width)
            if figure is None:
                return Picture(title=title, text=text, missing=missing)
            files += save(figure, out / f"{name}-{width}")
    return Picture(title=title, text=text, files=tuple(path.relative_to(out) for path in files))


def _panels(records: RunRecords, models: Models, shown: Shown | None) -> list[Panel]:
    entries = [("unpruned", Candidate())]
    if shown is not None:
        entries.append((shown.label, shown.candidate))
    panels = []
    for label, candidate in entries:
        model = models(candidate)
        kept = [candidate.channels.get(g.name, g.channels) for g in model.groups]
        batch_size = candidate.batch_size or records.study.training.batch_size
        timeline = model.timeline(kept, batch_size=batch_size)
        panels.append(Panel(label=label, timeline=timeline, recipe=candidate.recipe_text))
    return panels


def _tables(records: RunRecords, picked: Candidate | None) -> list[tuple[str, str, Table]]:
    return [
        (
            "The front as a table",
            "Members by peak memory, and the unpruned network. *Fits* is the smallest budget that "
            "a candidate fits. " + short_and_full(records),
            front_table(records, picked=picked),
        ),
        (
            "Finalists",
            finalists_note(records),
            finalists_table(records),
        ),
        *_recalls(records, picked),
        ("Baselines", "Candidates that need no search.", baselines_table(records)),
        ("All trials", "Every detail of every trial, as CSV only.", trials_table(records)),
    ]


def _recalls(records: RunRecords, picked: Candidate | None) -> list[tuple[str, str, Table]]:
    table = recalls_table(records, picked=picked)
    if table is None:
        return []
    text = (
        "Recall: the share of a class's validation images classified correctly, as the mean over "
        "the seeds of each network fine-tuned in full. Classes with the lowest recall come first."
    )
    if len(table.shown) < len(table.rows):
        text += f" Shown are {len(table.shown)} of {len(table.rows)} classes; recalls.csv has all."
    return [("Recall of each class", text, table)]


def write_table(table: Table, out: Path) -> list[Path]:
    """Write a table as CSV, and as Markdown and LaTeX if it has columns to show.

    Args:
        table: the table.
        out: the folder.

    Returns:
        The files.
    """
    texts = {"csv": to_csv(table)}
    if table.columns:
        texts |= {"md": to_markdown(table), "tex": to_latex(table)}
    paths = []
    for suffix, text in texts.items():
        path = out / f"{table.name}.{suffix}"
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths
