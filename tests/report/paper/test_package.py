"""A folder and an archive of a few small parts."""

import zipfile
from pathlib import Path

import pytest

from dse.report.paper.package import PaperFigure, PaperFiles, PaperTable, write_package
from dse.report.render import Column, Table
from dse.report.style import PAPER_FORMATS, WIDTHS, new_figure, paper_style, save
from support.latex import compiled, needs_latex

TABLE = Table(
    name="one",
    fields=("name", "bytes"),
    rows=[{"name": "50 % & #1_a", "bytes": 3}],
    columns=[
        Column(title="Name_", show=lambda row: str(row["name"]), align="left"),
        Column(title="Bytes", show=lambda row: str(row["bytes"])),
    ],
)
EMPTY = Table(name="empty", fields=("name",), rows=[], columns=TABLE.columns)


FIGURES = [
    PaperFigure(name="line", caption="A 100 % line_", data=lambda: TABLE, wide=True),
    PaperFigure(name="none", caption="nothing", data=lambda: EMPTY),
]
TABLES = [PaperTable(table=TABLE, caption="50 %"), PaperTable(table=EMPTY, caption="nothing")]


def written(folder: Path, out: Path) -> PaperFiles:
    """Draw one of the figures into a folder, and write a package."""
    folder.mkdir()
    pictures: list[Path] = []
    with paper_style():
        for width in WIDTHS:
            figure = new_figure(width, height_inches=1)
            figure.add_subplot().plot([0, 1])
            pictures += save(figure, folder / f"line-{width}", formats=PAPER_FORMATS)
    return write_package(
        title="A_title",
        figures=FIGURES,
        pictures=pictures,
        tables=TABLES,
        method=r"As in \cite{moocore}.",
        out=out,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("package")
    files = written(place / "report", place / "my paper")
    assert files.folder == place / "my paper"
    return files.folder


def test_what_has_nothing_to_show_is_left_out(folder: Path) -> None:
    names = {str(one.relative_to(folder)) for one in folder.rglob("*.*")}
    assert names == {
        *(f"figures/line-{w}.{s}" for w in ("column", "page") for s in ("pdf", "svg", "png")),
        "figures/line.csv",
        *(f"tables/one.{suffix}" for suffix in ("csv", "md", "tex")),
        *("method.tex", "figures.tex", "tables.tex", "references.bib", "sample.tex"),
        *("paper.mplstyle", "README.md"),
    }
    assert "nothing" not in (folder / "figures.tex").read_text("utf-8")
    assert "nothing" not in (folder / "tables.tex").read_text("utf-8")


def test_the_same_parts_give_the_same_archive(folder: Path, tmp_path: Path) -> None:
    again = written(tmp_path / "report", tmp_path / "my paper")
    archive = folder.with_name("my paper.zip")
    assert archive.read_bytes() == again.archive.read_bytes()
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "unpacked")
    for name in again.names:
        assert (tmp_path / "unpacked/my paper" / name).read_bytes() == (folder / name).read_bytes()


@needs_latex
def test_it_compiles_from_the_archive_alone(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(folder.with_name("my paper.zip")) as file:
        file.extractall(tmp_path)
    compiled(tmp_path / "my paper", "sample", bibliography=True)
