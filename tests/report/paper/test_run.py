"""The paper's parts of a run: figures with data, tables, a paragraph, references, an archive."""

import csv
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dse.candidate import Candidate
from dse.memory.model import MemoryModel
from dse.names import TrainedFidelity
from dse.report.content import report_content
from dse.report.front_plot import draw_front
from dse.report.history_plot import draw_history
from dse.report.paper.bibliography import KEYS, cited
from dse.report.paper.method import method_paragraph
from dse.report.paper.package import PaperFiles
from dse.report.paper.picture_data import (
    front_data,
    hypervolume_data,
    memory_data,
    ratios_data,
)
from dse.report.paper.run import write_paper
from dse.report.selection import front_trials
from dse.report.style import STYLE_FILE, WIDTHS, Width, new_figure, paper_style, save
from dse.report.wording import mib
from dse.results.records import RunRecords
from support.latex import compiled, needs_latex
from support.networks import Residual
from support.runs import MIB, make_records, make_study

HOSTILE = "100%_a&b#c$d^e~f\\g{h}中"
LABELS = {HOSTILE: 30, "[x]": 20, "* and --": 20, "<b>\u202e": 20}


def small(width: Width) -> Figure:
    figure = new_figure(width, height_inches=1)
    figure.add_subplot().set_title("a title")
    return figure


@pytest.fixture(scope="module")
def models() -> Callable[[Candidate], MemoryModel]:
    torch.manual_seed(0)
    model = MemoryModel.compile(Residual(), torch.zeros(2, 3, 16, 16))
    return lambda _candidate: model


@pytest.fixture(scope="module")
def records(models: Callable[[Candidate], MemoryModel]) -> RunRecords:
    model = models(Candidate())
    made = make_records(
        trials=12,
        finals=2,
        groups=tuple((group.name, group.channels) for group in model.groups),
        peak=lambda kept: int(model.peaks(list(kept), batch_size=32)),
        study=make_study(budgets=(MIB, 2 * MIB), name="my_study"),
        images=LABELS,
    )
    network = made.study.network.model_copy(update={"name": f"nets:{HOSTILE}"})
    return replace(made, study=made.study.model_copy(update={"network": network}))


@pytest.fixture(scope="module")
def written(
    records: RunRecords,
    models: Callable[[Candidate], MemoryModel],
    tmp_path_factory: pytest.TempPathFactory,
) -> PaperFiles:
    place = tmp_path_factory.mktemp("report")
    with paper_style():  # the real pictures take half a minute
        pictures = [
            path
            for name in ("front", "hypervolume", "ratios", "memory")
            for width in WIDTHS
            for path in save(small(width), place / f"{name}-{width}", formats=("pdf",))
        ]
    content = report_content(records, models=models)
    return write_paper(content, pictures=pictures, out=place / "paper")


def test_every_picture_is_there_in_two_widths_and_as_data(
    written: PaperFiles,
) -> None:
    expected = {
        f"figures/{name}-{width}.pdf"
        for name in ("front", "hypervolume", "ratios", "memory")
        for width in ("column", "page")
    } | {f"figures/{name}.csv" for name in ("front", "hypervolume", "ratios", "memory")}
    found = {name for name in written.names if name.startswith("figures/")}
    assert found == expected
    for name in found:
        content = (written.folder / name).read_bytes()
        if name.endswith(".pdf"):
            assert b"/FontFile2" in content  # embedded TrueType
            assert b"/Type3" not in content


def test_the_archive_holds_the_folder_and_no_dates(written: PaperFiles) -> None:
    with zipfile.ZipFile(written.archive) as file:
        assert file.testzip() is None
        assert {one.filename for one in file.infolist()} == {f"paper/{n}" for n in written.names}
        assert {one.date_time for one in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        method = file.read("paper/method.tex")
    assert method == (written.folder / "method.tex").read_bytes()
    on_disk = {str(one.relative_to(written.folder)) for one in written.folder.rglob("*.*")}
    assert on_disk == set(written.names)


@needs_latex
def test_the_document_compiles_with_any_names(written: PaperFiles) -> None:
    compiled(written.folder, "sample", bibliography=True)


@needs_latex
def test_each_table_compiles_alone(written: PaperFiles) -> None:
    tables = sorted(name for name in written.names if re.fullmatch(r"tables/\w+\.tex", name))
    assert {f"tables/{name}.tex" for name in ("front", "finalists", "baselines", "recalls")} <= set(
        tables
    )
    body = "\n\n".join(rf"\resizebox{{\textwidth}}{{!}}{{\input{{{name}}}}}" for name in tables)
    text = (
        "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs,graphicx}\n"
        f"\\setlength{{\\parindent}}{{0pt}}\\begin{{document}}\n{body}\n\\end{{document}}\n"
    )
    (written.folder / "tables-alone.tex").write_text(text, encoding="utf-8")
    compiled(written.folder, "tables-alone")


def test_the_references_are_those_that_are_cited(written: PaperFiles) -> None:
    method = (written.folder / "method.tex").read_text("utf-8")
    keys = set(cited([method]))
    assert keys <= KEYS
    bibliography = (written.folder / "references.bib").read_text("utf-8")
    assert set(re.findall(r"^@\w+\{(\w+),", bibliography, re.MULTILINE)) == keys
    assert "fang2023depgraph" not in keys  # nothing was pruned with Torch-Pruning


def test_the_method_has_the_studys_own_figures(records: RunRecords) -> None:
    text = method_paragraph(records)
    counts = records.trials_by_state
    assert f"Of {sum(counts.values())} trials {counts['complete']} were trained" in text
    final = next(one for one in records.finals if one.label == "unpruned")
    score = (
        f"{100 * final.validation_accuracy:.1f} $\\pm$ {100 * (final.validation_spread or 0):.1f}"
    )
    assert f"The unpruned network has accuracy {score}" in text
    best = max(
        (one for one in records.finals if one.peak_bytes <= MIB and one is not final),
        key=lambda one: one.accuracy,
    )
    assert f"Within 1 MiB the best on the selection part is {best.label}" in text
    assert "None" not in text


def test_a_run_without_results_has_a_method_too() -> None:
    text = method_paragraph(make_records(trials=0, baselines=False, finals=0))
    assert "Of 0 trials 0 were trained" in text
    assert "hypervolume" not in text


def test_older_runs_that_pruned_with_torch_pruning_cite_it(records: RunRecords) -> None:
    versions = {"torch": "2.14", "torch-pruning": "1.6.1", "python": "3.11"}
    text = method_paragraph(replace(records, versions=versions))
    assert r"PyTorch~2.14~\cite{ansel2024pytorch} with python 3.11 and Torch-Pruning 1.6.1~" in text
    assert r"\cite{fang2023depgraph}" in text


def drawn(axes: Axes, label: str) -> list[tuple[float, float]]:
    """The points of everything in a picture with a label."""
    found = [line.get_xydata() for line in axes.lines if str(line.get_label()) == label]
    return [(float(x), float(y)) for points in found for x, y in np.asarray(points)]


@pytest.mark.parametrize("panel", ["short", "full"])
def test_the_fronts_data_are_what_is_drawn(records: RunRecords, panel: TrainedFidelity) -> None:
    with paper_style():
        axes = mpl.figure.Figure(layout="constrained").add_subplot()
        draw_front(axes, records, kind=panel, picked=None)
    rows = [one for one in front_data(records).rows if one["panel"] == panel]
    points = [
        (mib(float(str(one["peak_bytes"]))), 100 * float(str(one["accuracy"])))
        for one in rows
        if one["accuracy"] is not None
    ]
    if panel == "full":
        bars = [container.lines[0].get_xydata()[0] for container in axes.containers]
        assert sorted(map(tuple, np.round(bars, 6))) == sorted(
            (round(x, 6), round(y, 6)) for x, y in points
        )
        return
    for series, label in (("front", "trial on the front"), ("trial", "trial")):
        own = [
            p
            for p, row in zip(points, [r for r in rows if r["accuracy"] is not None], strict=True)
            if row["series"] == series
        ]
        assert np.allclose(sorted(drawn(axes, label)), sorted(own))


def test_the_hypervolumes_data_are_what_is_drawn(records: RunRecords) -> None:
    axes = mpl.figure.Figure().add_subplot()
    draw_history(axes, records)
    rows = hypervolume_data(records).rows
    line = drawn(axes, "search")
    assert [y for _, y in line] == pytest.approx(
        [100 * float(str(one["hypervolume"])) for one in rows]
    )


def test_ratios_and_memory_as_data(
    records: RunRecords, models: Callable[[Candidate], MemoryModel]
) -> None:
    ratios = ratios_data(records)
    front = front_trials(records)
    assert len(ratios.rows) == len(records.groups)
    assert len(ratios.fields) == 2 + len(front)
    name, channels = records.groups[0]
    kept = front[0].candidate.channels.get(name, channels)
    assert ratios.rows[0][f"trial {front[0].number}"] == pytest.approx(1 - kept / channels)
    panels = report_content(records, models=models).panels
    rows = memory_data(panels).rows
    highest = max(
        sum(
            value for key, value in one.items() if key.endswith("_bytes") and isinstance(value, int)
        )
        for one in rows
        if one["network"] == "unpruned"
    )
    timeline = panels[0].timeline
    assert highest == timeline.bytes.sum(axis=1).max()


def test_the_csv_files_can_be_read(written: PaperFiles) -> None:
    for name in written.names:
        if name.endswith(".csv"):
            with (written.folder / name).open(newline="", encoding="utf-8") as file:
                assert list(csv.DictReader(file))


def test_the_style_file_is_the_style(written: PaperFiles) -> None:
    with paper_style():
        ours = dict(mpl.rcParams)
    with mpl.style.context(written.folder / STYLE_FILE.name):
        assert dict(mpl.rcParams) == ours
    with mpl.style.context("dse.report.paper"):
        assert mpl.rcParams["pdf.fonttype"] == 42
