"""Writes a run's report into a folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from dse.candidate import Candidate
from dse.memory.model import MemoryModel
from dse.report import captions
from dse.report.front_plot import front_figure
from dse.report.history_plot import history_figure
from dse.report.html.page import PageContent, html_page
from dse.report.memory_plot import Panel, memory_figure
from dse.report.page import Picture, Section, page
from dse.report.plan_table import plan_note, plan_table
from dse.report.ratios_plot import ratios_figure
from dse.report.recalls_table import recalls_table
from dse.report.render import Table, to_csv, to_latex, to_markdown
from dse.report.search_tables import (
    fidelity_note,
    fidelity_table,
    importance_note,
    importance_table,
)
from dse.report.selection import Shown, shown_candidate
from dse.report.style import Width, paper_style, save
from dse.report.tables import baselines_table, finalists_table, front_table, trials_table
from dse.report.wording import finalists_note, origin, short_and_full
from dse.results.importance import Importances, importances
from dse.results.records import RunRecords
from dse.step.plan_figures import PlanFigures

_WIDTHS: tuple[Width, ...] = ("column", "page")
_NO_TRIAL = "no trial is complete yet"

Models = Callable[[Candidate], MemoryModel]


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """The files that were written.

    Attributes:
        index: the page that links all others, in Markdown.
        html: the page that can be clicked, which needs no other file; None if there is none.
        pictures: PDF and PNG of each plot, in the widths of a column and of the page.
        tables: CSV, Markdown and LaTeX files.
    """

    index: Path
    html: Path | None = None
    pictures: tuple[Path, ...]
    tables: tuple[Path, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file, the pages first."""
        pages = (self.index,) if self.html is None else (self.index, self.html)
        return (*pages, *self.pictures, *self.tables)


def write_report(
    records: RunRecords,
    *,
    models: Models,
    out: Path,
    picked: Candidate | None = None,
    plan: PlanFigures | None = None,
) -> ReportFiles:
    """Write plots, tables and the pages that show them: one in Markdown, one in HTML.

    The same records give the same bytes. Plots that have nothing to show yet are left out, and the
    page says why.

    Args:
        records: the run.
        models: returns a candidate's memory model, for the plot of memory over a step.
        out: the folder; created if it doesn't exist.
        picked: the candidate to highlight; without one, the front's knee is compared with the
            unpruned network.
        plan: the lean plan of that candidate; None if stock PyTorch runs its steps, or it isn't
            known.

    Raises:
        RunError: if the picked candidate was never trained in this run.
    """
    shown = shown_candidate(records, picked=picked)
    highlighted = shown if picked is not None else None
    out.mkdir(parents=True, exist_ok=True)
    panels = memory_panels(records, models, shown)
    pictures = _write_pictures(records, panels, out, highlighted=highlighted)
    found = importances(records)
    tables = report_sections(records, picked=picked, found=found, shown=shown, plan=plan)
    written = [
        path
        for section in tables
        if section.table is not None
        for path in write_table(section.table, out)
    ]
    index = out / "report.md"
    index.write_text(page(records, pictures=pictures, tables=tables), encoding="utf-8")
    content = PageContent(
        records=records,
        models=models,
        sections=tables,
        panels=panels,
        shown=shown,
        picked=picked,
        found=found,
        plan=plan,
    )
    html = out / "index.html"
    html.write_text(html_page(content), encoding="utf-8")
    return ReportFiles(
        index=index,
        html=html,
        pictures=tuple(out / path for picture in pictures for path in picture.files),
        tables=tuple(written),
    )


def _write_pictures(
    records: RunRecords, panels: list[Panel], out: Path, *, highlighted: Shown | None
) -> list[Picture]:
    return [
        _picture(
            out,
            name="front",
            title="Front",
            text=f"{captions.front(records)} {captions.LETTERS}",
            missing="no trial and no baseline is there yet",
            draw=lambda width: front_figure(records, width=width, picked=highlighted),
        ),
        _picture(
            out,
            name="hypervolume",
            title="Hypervolume over trials",
            text=captions.hypervolume(records),
            missing=_NO_TRIAL,
            draw=lambda width: history_figure(records, width=width),
        ),
        _picture(
            out,
            name="ratios",
            title="Pruning ratios along the front",
            text=f"{captions.RATIOS} {captions.STAR}",
            missing=_NO_TRIAL,
            draw=lambda width: ratios_figure(records, width=width, picked=highlighted),
        ),
        _picture(
            out,
            name="memory",
            title="Memory over one training step",
            text=f"{captions.memory(panels)} {captions.TRIANGLE}",
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


def memory_panels(records: RunRecords, models: Models, shown: Shown | None) -> list[Panel]:
    """Return the memory over one step of the unpruned network and of the shown candidate."""
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


def report_sections(
    records: RunRecords,
    *,
    picked: Candidate | None,
    found: Importances,
    shown: Shown | None,
    plan: PlanFigures | None,
) -> list[Section]:
    """Return the parts of the report that show tables, in order.

    Args:
        records: the run.
        picked: the candidate that was picked for a device.
        found: importances of the dimensions.
        shown: the candidate that the plan belongs to.
        plan: its lean plan; None without one.
    """
    return [
        Section(
            name="front",
            title="The front as a table",
            text="Members by peak memory, and the unpruned network. *Fits* is the smallest budget "
            "that a candidate fits. " + short_and_full(records),
            table=front_table(records, picked=picked),
        ),
        Section(
            name="finalists",
            title="Finalists",
            text=finalists_note(records),
            table=finalists_table(records),
        ),
        *_recalls(records, picked),
        Section(
            name="baselines",
            title="Baselines",
            text="Candidates that need no search.",
            table=baselines_table(records),
        ),
        *_plan(plan, shown),
        Section(
            name="importance",
            title="Importance of the dimensions",
            text=importance_note(found, metric=records.metric),
            table=importance_table(found),
        ),
        Section(
            name="fidelity",
            title="Short against full training, at similar memory",
            text=fidelity_note(records),
            table=fidelity_table(records),
        ),
        Section(
            name="trials",
            title="All trials",
            text="Every detail of every trial, as CSV only.",
            table=trials_table(records),
        ),
    ]


def _plan(plan: PlanFigures | None, shown: Shown | None) -> list[Section]:
    if plan is None or shown is None:
        return []
    note = plan_note(plan, label=shown.label)
    return [Section(name="plan", title="Plan of the lean step", text=note, table=plan_table(plan))]


def _recalls(records: RunRecords, picked: Candidate | None) -> list[Section]:
    table = recalls_table(records, picked=picked)
    if table is None:
        return []
    text = (
        "Recall: the share of a class's validation images classified correctly, as the mean over "
        "the seeds of each network fine-tuned in full. Classes with the lowest recall come first."
    )
    if len(table.shown) < len(table.rows):
        text += f" Shown are {len(table.shown)} of {len(table.rows)} classes; recalls.csv has all."
    return [Section(name="recalls", title="Recall of each class", text=text, table=table)]


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
