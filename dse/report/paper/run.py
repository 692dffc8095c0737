"""The paper's parts of one run."""

from pathlib import Path

from dse.candidate import Candidate
from dse.report import captions, wording
from dse.report.front_plot import front_figure
from dse.report.history_plot import history_figure
from dse.report.memory_plot import memory_figure
from dse.report.page import Section
from dse.report.paper.method import method_paragraph
from dse.report.paper.package import PaperFiles, Plate, Sheet, write_package
from dse.report.paper.picture_data import (
    front_data,
    hypervolume_data,
    memory_data,
    ratios_data,
)
from dse.report.ratios_plot import ratios_figure
from dse.report.selection import shown_candidate
from dse.report.write import Models, memory_panels, report_sections
from dse.results.importance import importances
from dse.results.records import RunRecords


def write_paper(
    records: RunRecords, *, models: Models, out: Path, picked: Candidate | None = None
) -> PaperFiles:
    """Write the paper's parts of a run.

    Args:
        records: the run.
        models: returns a candidate's memory model, for the plot of memory over a step.
        out: the folder; created if it doesn't exist.
        picked: the candidate to highlight; without one, the front's knee is compared with the
            unpruned network.

    Raises:
        RunError: if the picked candidate was never trained in this run.
    """
    sections = report_sections(
        records, picked=picked, found=importances(records), shown=None, plan=None
    )
    return write_package(
        title=records.study.name,
        plates=_plates(records, models, picked),
        sheets=[sheet for section in sections for sheet in _sheets(section)],
        method=method_paragraph(records),
        out=out,
    )


def _plates(records: RunRecords, models: Models, picked: Candidate | None) -> list[Plate]:
    shown = shown_candidate(records, picked=picked)
    star = shown if picked is not None else None
    panels = memory_panels(records, models, shown)
    origin = wording.origin(records)
    regime = f"{'; '.join(origin[1:])}."
    return [
        Plate(
            name="front",
            caption=f"{captions.front(records)} {captions.LETTERS} {_lengths(records)} {regime}",
            draw=lambda width: front_figure(records, width=width, picked=star),
            data=lambda: front_data(records),
            wide=True,
        ),
        Plate(
            name="hypervolume",
            caption=f"{captions.hypervolume(records)} {regime}",
            draw=lambda width: history_figure(records, width=width),
            data=lambda: hypervolume_data(records),
        ),
        Plate(
            name="ratios",
            caption=f"{captions.RATIOS} {regime}",
            draw=lambda width: ratios_figure(records, width=width, picked=star),
            data=lambda: ratios_data(records),
        ),
        Plate(
            name="memory",
            caption=f"{captions.memory(panels)} {captions.TRIANGLE} {regime}",
            draw=lambda width: memory_figure(panels, caption=origin, width=width),
            data=lambda: memory_data(panels),
            wide=True,
        ),
    ]


def _lengths(records: RunRecords) -> str:
    proxy = records.study.proxy
    short = f"Short training: {wording.epochs(proxy.short_epochs)}, one seed"
    if not records.finals:
        return f"{short}."
    full = f"full training: {wording.epochs(proxy.full_epochs)}, {wording.final_seeds(records)}"
    return f"{short}; {full}."


def _sheets(section: Section) -> list[Sheet]:
    """Return a section's table with its text as caption, if it has one to show."""
    if section.table is None or not section.table.columns:
        return []
    text = section.text.replace("*", "")  # Markdown's emphasis
    return [Sheet(table=section.table, caption=f"{section.title}. {text}")]
