"""Writes figures, tables, a paragraph and its references into a folder and an archive."""

import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dse.report.escape import markdown_escaped
from dse.report.paper.bibliography import bibliography, cited
from dse.report.paper.latex import figure_float, sample_document, table_float, with_glyphs
from dse.report.render import Table, to_csv, to_latex, to_markdown
from dse.report.style import STYLE_FILE, WIDTHS

_DATE = (1980, 1, 1, 0, 0, 0)  # the same files give the same archive
_README = """\
# {title}

* `figures/`: each picture as PDF, SVG and PNG, in the width of a column (3.3 inches) and of a page
  (7 inches), with fonts embedded; beside it, what it shows as CSV.
* `tables/`: each table as LaTeX (`\\input` it; needs booktabs and T1 fonts), CSV and Markdown.
* `method.tex`: a paragraph on the method with the study's own figures; `references.bib`: what it
  cites.
* `figures.tex`, `tables.tex`: floats with captions. `sample.tex` shows everything:
  `pdflatex sample; bibtex sample; pdflatex sample; pdflatex sample`.
* `paper.mplstyle`: the style of the pictures, for `matplotlib.pyplot.style.use`.
"""


@dataclass(frozen=True, kw_only=True)
class PaperFigure:
    """One picture with what it shows.

    Attributes:
        name: stem of its files, without the width.
        caption: plain text.
        data: returns what it shows.
        wide: whether the document shows it in the page's width.
    """

    name: str
    caption: str
    data: Callable[[], Table]
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table with its caption in plain text."""

    table: Table
    caption: str


@dataclass(frozen=True, kw_only=True)
class PaperFiles:
    """The files that were written.

    Attributes:
        folder: the folder.
        archive: a zip file of the folder.
        names: every file, relative to the folder.
    """

    folder: Path
    archive: Path
    names: tuple[str, ...]


def write_package(
    *,
    title: str,
    figures: Sequence[PaperFigure],
    pictures: Sequence[Path],
    tables: Sequence[PaperTable],
    method: str,
    out: Path,
) -> PaperFiles:
    """Write everything into a folder, and the folder into an archive beside it.

    The same figures give the same bytes. Pictures that have nothing to show, and tables without
    rows, are left out.

    Args:
        title: title in plain text.
        figures: the figures.
        pictures: files of all figures, which are copied.
        tables: the tables.
        method: the paragraph, as LaTeX.
        out: the folder; created if it doesn't exist.
    """
    names: list[str] = []

    def write(name: str, text: str) -> None:
        place = out / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        names.append(name)

    figure_floats, table_floats = [], []
    for figure in figures:
        copied = _copied(figure.name, pictures, out / "figures")
        if copied:
            names += [f"figures/{name}" for name in copied]
            write(f"figures/{figure.name}.csv", to_csv(figure.data()))
            figure_floats.append(figure_float(figure.name, figure.caption, wide=figure.wide))
    for one in tables:
        if not one.table.rows:
            continue
        stem = f"tables/{one.table.name}"
        write(f"{stem}.csv", to_csv(one.table))
        if one.table.columns:
            write(f"{stem}.tex", to_latex(one.table))
            write(f"{stem}.md", to_markdown(one.table))
            table_floats.append(table_float(one.table.name, one.caption))
    write("method.tex", with_glyphs([method]))
    write("figures.tex", with_glyphs(figure_floats))
    write("tables.tex", with_glyphs(table_floats))
    write("references.bib", bibliography(cited([method])))
    write("sample.tex", sample_document(title))
    write(STYLE_FILE.name, STYLE_FILE.read_text(encoding="utf-8"))
    write("README.md", _README.format(title=markdown_escaped(title)))
    archive = out.with_name(f"{out.name}.zip")
    _pack(out, sorted(names), archive)
    return PaperFiles(folder=out, archive=archive, names=tuple(sorted(names)))


def _copied(name: str, pictures: Sequence[Path], folder: Path) -> list[str]:
    """Copy the files of a figure in both widths; none if it wasn't drawn."""
    stems = {f"{name}-{width}" for width in WIDTHS}
    own = [path for path in pictures if path.stem in stems]
    folder.mkdir(parents=True, exist_ok=True)
    for path in own:
        shutil.copyfile(path, folder / path.name)
    return [path.name for path in own]


def _pack(folder: Path, names: Sequence[str], archive: Path) -> None:
    """Write files into an archive, below the folder's name."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            entry = zipfile.ZipInfo(f"{folder.name}/{name}", date_time=_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            file.writestr(entry, (folder / name).read_bytes())
