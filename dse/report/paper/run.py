"""The paper's parts of one run."""

from collections.abc import Sequence
from pathlib import Path

from dse.report import captions, wording
from dse.report.content import ReportContent
from dse.report.page import Section
from dse.report.paper.method import method_paragraph
from dse.report.paper.package import PaperFigure, PaperFiles, PaperTable, write_package
from dse.report.paper.picture_data import (
    front_data,
    hypervolume_data,
    memory_data,
    ratios_data,
)
from dse.results.records import RunRecords

_TOO_LONG = frozenset({"plan"})  # one row for each block doesn't fit a float


def write_paper(content: ReportContent, *, pictures: Sequence[Path], out: Path) -> PaperFiles:
    """Write the paper's parts of a run.

    Args:
        content: what the run's report shows.
        pictures: files of the report's plots, which are copied.
        out: the folder; created if it doesn't exist.
    """
    return write_package(
        title=content.records.study.name,
        figures=_figures(content),
        pictures=pictures,
        tables=[table for section in content.sections for table in _tables(section)],
        method=method_paragraph(content.records),
        out=out,
    )


def _figures(content: ReportContent) -> list[PaperFigure]:
    records, panels = content.records, content.panels
    regime = f"{'; '.join(wording.origin(records)[1:])}."
    return [
        PaperFigure(
            name="front",
            caption=f"{captions.front(records)} {captions.LETTERS} {_lengths(records)} {regime}",
            data=lambda: front_data(records),
            wide=True,
        ),
        PaperFigure(
            name="hypervolume",
            caption=f"{captions.hypervolume(records)} {regime}",
            data=lambda: hypervolume_data(records),
        ),
        PaperFigure(
            name="ratios",
            caption=f"{captions.RATIOS} {regime}",
            data=lambda: ratios_data(records),
        ),
        PaperFigure(
            name="memory",
            caption=f"{captions.memory(panels)} {captions.TRIANGLE} {regime}",
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


def _tables(section: Section) -> list[PaperTable]:
    """Return a section's table with its text as caption, if it has one to show."""
    if section.table is None or not section.table.columns or section.name in _TOO_LONG:
        return []
    text = section.text.replace("*", "")  # Markdown's emphasis
    return [PaperTable(table=section.table, caption=f"{section.title}. {text}")]
