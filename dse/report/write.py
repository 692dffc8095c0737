"""Writes a run's report into a folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from dse.report import captions
from dse.report.content import ReportContent
from dse.report.front_plot import front_figure
from dse.report.history_plot import history_figure
from dse.report.html.page import html_page
from dse.report.memory_plot import memory_figure
from dse.report.page import Picture, page
from dse.report.ratios_plot import ratios_figure
from dse.report.render import Table, to_csv, to_latex, to_markdown
from dse.report.style import REPORT_FORMATS, WIDTHS, PictureFormat, Width, paper_style, save
from dse.report.wording import origin

_NO_TRIAL = "no trial is complete yet"


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """The files that were written.

    Attributes:
        index: the page that links all others, in Markdown.
        html: the page that can be clicked, which needs no other file; None if there is none.
        pictures: files of each plot, in the widths of a column and of the page.
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
    content: ReportContent, *, out: Path, formats: Sequence[PictureFormat] = REPORT_FORMATS
) -> ReportFiles:
    """Write plots, tables and the pages that show them: one in Markdown, one in HTML.

    The same content gives the same bytes. Plots that have nothing to show yet are left out, and the
    page says why.

    Args:
        content: what the report shows.
        out: the folder; created if it doesn't exist.
        formats: formats of the plots; the page embeds the last one.
    """
    out.mkdir(parents=True, exist_ok=True)
    pictures = _write_pictures(content, out, formats)
    written = [
        path
        for section in content.sections
        if section.table is not None
        for path in write_table(section.table, out)
    ]
    index = out / "report.md"
    text = page(content.records, pictures=pictures, tables=content.sections)
    index.write_text(text, encoding="utf-8")
    html = out / "index.html"
    html.write_text(html_page(content), encoding="utf-8")
    return ReportFiles(
        index=index,
        html=html,
        pictures=tuple(out / path for picture in pictures for path in picture.files),
        tables=tuple(written),
    )


def _write_pictures(
    content: ReportContent, out: Path, formats: Sequence[PictureFormat]
) -> list[Picture]:
    records, panels, star = content.records, content.panels, content.highlighted
    write = partial(_picture, out, formats)
    return [
        write(
            name="front",
            title="Front",
            text=f"{captions.front(records)} {captions.LETTERS}",
            missing="no trial and no baseline is there yet",
            draw=lambda width: front_figure(records, width=width, picked=star),
        ),
        write(
            name="hypervolume",
            title="Hypervolume over trials",
            text=captions.hypervolume(records),
            missing=_NO_TRIAL,
            draw=lambda width: history_figure(records, width=width),
        ),
        write(
            name="ratios",
            title="Pruning ratios along the front",
            text=f"{captions.RATIOS} {captions.STAR}",
            missing=_NO_TRIAL,
            draw=lambda width: ratios_figure(records, width=width, picked=star),
        ),
        write(
            name="memory",
            title="Memory over one training step",
            text=f"{captions.memory(panels)} {captions.TRIANGLE}",
            missing="",
            draw=lambda width: memory_figure(panels, caption=origin(records), width=width),
        ),
    ]


def _picture(
    out: Path,
    formats: Sequence[PictureFormat],
    *,
    name: str,
    title: str,
    text: str,
    missing: str,
    draw: Callable[[Width], Figure | None],
) -> Picture:
    files: list[Path] = []
    with paper_style():
        for width in WIDTHS:
            figure = draw(width)
            if figure is None:
                return Picture(title=title, text=text, missing=missing)
            files += save(figure, out / f"{name}-{width}", formats=formats)
    return Picture(title=title, text=text, files=tuple(path.relative_to(out) for path in files))


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
