"""A run in a notebook: frames, plots by the report's own code, and a summary."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt

import dse
from dse.candidate import Candidate
from dse.errors import RunError
from dse.notebook.run import Run
from dse.report.front_plot import front_figure
from dse.report.history_plot import history_figure
from dse.report.ratios_plot import ratios_figure
from dse.report.selection import front_trials, knee_trial
from dse.report.style import paper_style
from dse.results.records import RunRecords
from support.drawing import check_texts
from support.runs import make_records, make_study

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def records() -> RunRecords:
    return make_records()


@pytest.fixture(scope="module")
def run(records: RunRecords) -> Run:
    return Run(records)


def test_trials_hold_every_record_in_named_units(run: Run, records: RunRecords) -> None:
    frame = run.trials
    assert len(frame) == len(records.trials)
    for trial in records.trials:
        row = frame.loc[trial.number]
        assert row["state"] == trial.state
        assert row["peak_bytes"] == trial.peak_bytes
        if trial.accuracy is None:
            assert np.isnan(row["accuracy_percent"])
        else:
            assert row["accuracy_percent"] == pytest.approx(100 * trial.accuracy)
        for name, full in records.groups:
            kept = trial.candidate.channels.get(name, full)
            assert row[f"ratio.{name}"] == pytest.approx(1 - kept / full)
    assert set(frame["batch_size"]) == {records.study.training.batch_size}
    assert str(frame["duplicate_of"].dtype) == "Int64"


def test_a_recipe_of_its_own_takes_the_place_of_the_studys(records: RunRecords) -> None:
    own = Candidate(scheme="last", batch_size=8, accumulate=4, image_size=24)
    first = replace(records.trials[0], candidate=own)
    row = Run(replace(records, trials=(first, *records.trials[1:]))).trials.loc[0]
    assert (row["scheme"], row["batch_size"], row["accumulate"]) == ("last", 8, 4)
    assert (row["image_size_pixels"], row["optimizer"]) == (24, records.study.training.optimizer)


def test_the_front_is_the_reports(run: Run, records: RunRecords) -> None:
    members = front_trials(records)
    assert list(run.front.index) == [one.number for one in members]
    assert run.front["peak_bytes"].is_monotonic_increasing
    bend = knee_trial(records)
    assert list(run.front.index[run.front["is_knee"]]) == ([] if bend is None else [bend.number])
    for member in members:
        final = records.final_of(member.candidate)
        shown = run.front.loc[member.number, "validation_accuracy_percent_mean"]
        assert np.isnan(shown) if final is None else shown == 100 * final.validation_accuracy


def test_finals_and_baselines(run: Run, records: RunRecords) -> None:
    assert list(run.finals.index) == [one.label for one in records.finals]
    assert list(run.finals["seeds"]) == [3] * len(records.finals)
    assert run.finals["selection_accuracy_percent_std"].notna().all()
    assert list(run.baselines.index) == [one.label for one in records.baselines]
    assert run.baselines.loc["unpruned", "ratio.stem"] == 0


def test_another_metric_and_more_objectives_name_their_columns() -> None:
    study = make_study(objectives=("accuracy", "peak_bytes", "macs_forward"))
    search = study.search.model_copy(update={"metric": "macro-f1"})
    run = Run(make_records(study=study.model_copy(update={"search": search})))
    assert {"macro_f1_percent", "macs_forward"} <= set(run.trials.columns)
    assert "validation_macro_f1_percent_mean" in run.finals.columns


def test_an_empty_run_has_empty_frames_with_all_columns() -> None:
    empty = Run(make_records(trials=0, baselines=False, finals=0))
    for frame in (empty.trials, empty.front, empty.finals, empty.baselines):
        assert len(frame) == 0
        assert "ratio.stem" in frame.columns
    assert "none yet" in empty._repr_html_()
    for plot in (empty.plot_front, empty.plot_history, empty.plot_ratios):
        with pytest.raises(RunError, match="nothing to plot: "):
            plot()
    assert plt.get_fignums() == []
    with pytest.raises(RunError, match="nothing has been trained in full yet"):
        empty.plot_front(fidelity="full")


def test_a_candidate_is_found_by_its_number(run: Run, records: RunRecords) -> None:
    assert run.candidate(3) == records.trials[3].candidate
    with pytest.raises(RunError, match="has no trial 99; its trials are from 0 to 39"):
        run.candidate(99)


def lines_of(axes: plt.Axes) -> list[tuple[str, list[float], list[float]]]:
    return [
        (str(line.get_label()), *(np.asarray(d, float).tolist() for d in line.get_data()))
        for line in axes.lines
    ]


def test_plots_draw_what_the_report_draws(run: Run, records: RunRecords) -> None:
    with paper_style():
        front = front_figure(records, width="page", picked=None)
        history = history_figure(records, width="page")
        ratios = ratios_figure(records, width="page", picked=None)
    assert front is not None
    assert history is not None
    assert ratios is not None
    for number, fidelity in enumerate(("short", "full")):
        drawn = run.plot_front(fidelity=fidelity)  # type: ignore[arg-type]
        assert lines_of(drawn) == lines_of(front.axes[number])
        assert drawn.get_title("left") == front.axes[number].get_title("left")
    assert lines_of(run.plot_history()) == lines_of(history.axes[0])
    ours, theirs = (axes.images[0].get_array() for axes in (run.plot_ratios(), ratios.axes[0]))
    assert ours is not None
    assert theirs is not None
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("given", [False, True])
def test_no_text_of_a_plot_lies_on_another(run: Run, given: bool) -> None:  # noqa: FBT001
    star = run.front.index[0]
    plots = (
        lambda ax: run.plot_front(ax, picked=star),
        lambda ax: run.plot_front(ax, fidelity="full"),
        run.plot_history,
        lambda ax: run.plot_ratios(ax, picked=star),
    )
    for plot in plots:
        # A figure of the user's own has larger letters.
        own = plt.subplots(figsize=(9, 5), layout="constrained")[1] if given else None
        axes = plot(own)
        assert own is None or axes is own
        check_texts(axes.get_figure(root=True))  # type: ignore[arg-type]


def test_the_summary_is_short_and_escapes_names(records: RunRecords) -> None:
    study = records.study.model_copy(update={"name": "<script>alert(1)</script>"})
    html = Run(replace(records, study=study))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "trained in full" in html
    assert len(html) < 3000


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run folder"):
        dse.open_run(tmp_path / "nothing")
