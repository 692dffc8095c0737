"""A comparison as figures, tables and a page."""

import csv
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from dse.report.compare_plot import attainment_figure, hypervolume_figure, look_of
from dse.report.compare_tables import attainment_table, groups_table, hypervolume_table
from dse.report.compare_write import write_comparison
from dse.report.style import Width, paper_style
from dse.report.wording import mib
from dse.results.comparison import Comparison, compare
from dse.results.grouping import Group, grouped
from support.drawing import check_texts
from support.several import made_run, two_methods

HOSTILE = r"50 % & <b>_#$\input{x}"


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    ours, theirs = grouped(two_methods())
    return compare([Group(label=HOSTILE, runs=ours.runs), theirs])


@pytest.mark.parametrize("width", ["column", "page"])
def test_no_text_of_a_figure_lies_on_another(comparison: Comparison, width: Width) -> None:
    with paper_style():
        for figure in (
            attainment_figure(comparison, width=width),
            hypervolume_figure(comparison, width=width),
        ):
            assert HOSTILE in check_texts(figure)


def test_a_figure_draws_what_its_table_holds(comparison: Comparison) -> None:
    with paper_style():
        axes = attainment_figure(comparison, width="page").axes[0]
        others = hypervolume_figure(comparison, width="page").axes[0]
    for group in comparison.groups:
        rows = [one for one in attainment_table(comparison).rows if one["group"] == group.label]
        median = [one for one in rows if one["surface"] == "half of the runs"]
        line = next(one for one in axes.lines if one.get_label() == group.label)
        drawn = np.asarray(line.get_xydata())[:-1]  # the last continues to the edge
        assert np.allclose(drawn[:, 0], [mib(float(str(one["peak_bytes"]))) for one in median])
        assert np.allclose(drawn[:, 1], [100 * float(str(one["accuracy"])) for one in median])
        line = next(one for one in others.lines if one.get_label() == group.label)
        means = [
            100 * float(str(one["hypervolume_mean"]))
            for one in hypervolume_table(comparison).rows
            if one["group"] == group.label
        ]
        assert np.allclose(np.asarray(line.get_ydata(), float), means)


def test_a_band_holds_the_median_and_ends_where_runs_do(comparison: Comparison) -> None:
    with paper_style():
        axes = attainment_figure(comparison, width="page").axes[0]
    bands = [one for one in axes.collections if isinstance(one, PolyCollection)]
    assert len(bands) == len(comparison.groups)
    group = comparison.groups[0]
    quarter, half, most = (comparison.surface(group, percent=one) for one in (25, 50, 75))
    assert quarter[0, 0] <= half[0, 0] <= most[0, 0]
    corners = bands[0].get_paths()[0].vertices
    assert np.isclose(np.asarray(corners)[:, 0].min(), mib(quarter[0, 0]))


def test_single_runs_have_no_band_and_no_interval() -> None:
    runs = [made_run(seed=0, sampler="front"), made_run(seed=1, sampler="tpe")]
    single = compare(grouped(runs))
    with paper_style():
        assert not attainment_figure(single, width="page").axes[0].collections
    row = groups_table(single).rows[0]
    assert row["hypervolume"] is not None
    assert row["hypervolume_low"] is None
    assert {one["surface"] for one in attainment_table(single).rows} == {"half of the runs"}


def test_where_some_runs_fit_no_budget_no_mean_is_shown() -> None:
    runs = [made_run(seed=seed) for seed in range(2)]
    smallest = sorted(min(one.peak_bytes for one in run.complete) for run in runs)
    budgets = (smallest[1] - 1, 48 * 2**20)
    studies = [
        run.study.model_copy(
            update={"search": run.study.search.model_copy(update={"budgets": budgets})}
        )
        for run in runs
    ]
    pair = [replace(run, study=study) for run, study in zip(runs, studies, strict=True)]
    table = groups_table(compare(grouped(pair)))
    shown = [column.show(table.rows[0]) for column in table.columns]
    assert "1 of 2 runs fit" in shown


def test_looks_of_neighbours_differ_in_colour_and_dashes() -> None:
    looks = [look_of(number) for number in range(21)]
    assert len({(one.colour, str(one.dashes)) for one in looks}) == 21
    for one, other in pairwise(looks):
        assert one.colour != other.colour
        assert one.dashes != other.dashes


def test_every_file_is_there_and_names_are_escaped(comparison: Comparison, tmp_path: Path) -> None:
    files = write_comparison(comparison, out=tmp_path / "a")
    assert {path.name for path in files.paths} == {path.name for path in (tmp_path / "a").iterdir()}
    assert {path.suffix for path in files.pictures} == {".pdf", ".svg", ".png"}
    svg = (tmp_path / "a/attainment-column.svg").read_text("utf-8")
    assert "<text" not in svg  # outlines, so that no font is needed
    page = files.index.read_text("utf-8")
    assert "<b>" not in page
    assert r"50 % &amp; &lt;b&gt;\_\#" in page
    tex = (tmp_path / "a/groups.tex").read_text("utf-8")
    assert r"50 \% \& \textless{}b\textgreater{}\_\#\$" in tex
    with (tmp_path / "a/runs.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for path in page.split("](")[1:]:
        assert (tmp_path / "a" / path.split(")")[0]).is_file()
