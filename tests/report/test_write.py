"""The whole report, from records and a real memory model to files."""

import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path

import matplotlib as mpl
import pytest
from markdown_it import MarkdownIt

from dse.candidate import Candidate
from dse.errors import RunError
from dse.memory.model import MemoryModel
from dse.report.content import report_content
from dse.report.page import page
from dse.report.write import ReportFiles, write_report
from dse.results.records import RunRecords
from support.runs import MIB, make_records, make_study


def always(model: MemoryModel) -> Callable[[Candidate], MemoryModel]:
    return lambda _candidate: model


@pytest.fixture(scope="module")
def records(model: MemoryModel) -> RunRecords:
    return small_run(model)


def small_run(model: MemoryModel, *, trials: int = 12, finals: int = 2) -> RunRecords:
    """A made-up run over a real network, whose peaks are those of its memory model."""
    groups = tuple((group.name, group.channels) for group in model.groups)
    return make_records(
        trials=trials,
        finals=finals,
        baselines=trials > 0,
        groups=groups,
        peak=lambda kept: int(model.peaks(list(kept), batch_size=32)),
        study=make_study(budgets=(MIB, 2 * MIB)),
    )


@pytest.fixture(scope="module")
def written(
    records: RunRecords, model: MemoryModel, tmp_path_factory: pytest.TempPathFactory
) -> ReportFiles:
    out = tmp_path_factory.mktemp("report") / "deep" / "er"
    picked = records.finals[0].candidate
    return write_report(report_content(records, models=always(model), picked=picked), out=out)


def test_every_file_is_named_and_there(written: ReportFiles) -> None:
    out = written.index.parent
    assert sorted(written.paths) == sorted(out.iterdir())
    assert {path.name for path in written.pictures} == {
        f"{name}-{width}.{suffix}"
        for name in ("front", "hypervolume", "ratios", "memory")
        for width in ("column", "page")
        for suffix in ("pdf", "png")
    }
    assert {path.name for path in written.tables} == {
        "trials.csv",
        *(
            f"{name}.{suffix}"
            for name in ("front", "finalists", "baselines", "fidelity")
            for suffix in ("csv", "md", "tex")
        ),
    }


def test_the_page_links_only_what_is_there_and_says_how_it_was_counted(
    written: ReportFiles,
) -> None:
    text = written.index.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert {written.index.parent / link for link in links} == {*written.pictures, *written.tables}
    for word in (
        "tensors",
        "scheme full",
        "batch 32",
        "study seed 0, finalists on 3 seeds",
        "standard deviation over the seeds",
        "12: ",
        "complete",
        "1 MiB, 2 MiB",
        "trained at both",
        "| unpruned |",
    ):
        assert word in text


def test_the_same_records_give_the_same_bytes(
    records: RunRecords, model: MemoryModel, written: ReportFiles, tmp_path: Path
) -> None:
    picked = records.finals[0].candidate
    again = write_report(report_content(records, models=always(model), picked=picked), out=tmp_path)
    for first, second in zip(written.paths, again.paths, strict=True):
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes(), first.name


def test_drawing_leaves_matplotlib_as_it_was(
    records: RunRecords, model: MemoryModel, tmp_path: Path
) -> None:
    before = dict(mpl.rcParams)
    write_report(report_content(records, models=always(model)), out=tmp_path, formats=("pdf",))
    assert dict(mpl.rcParams) == before


def test_the_page_names_the_metric_of_the_study(
    records: RunRecords, model: MemoryModel, tmp_path: Path
) -> None:
    search = records.study.search.model_copy(update={"metric": "macro-f1"})
    study = records.study.model_copy(update={"search": search})
    content = report_content(replace(records, study=study), models=always(model))
    files = write_report(content, out=tmp_path, formats=("pdf",))
    text = files.index.read_text(encoding="utf-8").replace("Objectives | accuracy", "")
    assert "Macro F1 over predicted peak memory" in text
    assert "accuracy" not in text.lower()


def test_a_run_without_trials_still_has_a_report(model: MemoryModel, tmp_path: Path) -> None:
    content = report_content(small_run(model, trials=0, finals=0), models=always(model))
    files = write_report(content, out=tmp_path, formats=("pdf",))
    assert {path.name.split("-")[0] for path in files.pictures} == {"memory"}
    text = files.index.read_text(encoding="utf-8")
    assert "none yet" in text
    assert text.count("*Not drawn: ") == 3
    assert "too few" in text


def test_a_stranger_is_refused(records: RunRecords, model: MemoryModel) -> None:
    with pytest.raises(RunError, match="never trained"):
        report_content(records, models=always(model), picked=Candidate(channels={"stem.0": 5}))


def test_names_can_not_break_the_page() -> None:
    hostile = "# <img src=http://x/y> ![i](http://x/y) [l](http://x) | `c`\n\n- d"
    study = make_study(name="s", network="m:f").model_copy(
        update={"description": hostile, "name": hostile}
    )
    study = study.model_copy(
        update={"data": study.data.model_copy(update={"labels": (hostile, "b")})}
    )
    text = page(make_records(trials=0, finals=0, study=study), pictures=[], tables=[])
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert set(re.findall(r"<(\w+)", html)) <= {
        "h1",
        "h2",
        "p",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    }
    assert "://" not in text
    shown = "# <img src=http://x/y> ![i](http://x/y) [l](http://x) | `c`  - d"
    assert unescape(html).count(shown) == 3


@pytest.mark.parametrize(("turned", "warns"), [(False, False), (True, True)])
def test_a_poor_rank_correlation_is_warned_of(*, turned: bool, warns: bool) -> None:
    records = make_records(trials=60)
    trials = {trial.candidate.digest: trial.accuracy for trial in records.complete}
    finals = []
    for final in records.finals:
        short = trials.get(final.candidate.digest)
        if short is not None:
            accuracies = (1 - short if turned else short,) * len(final.accuracies)
            finals.append(replace(final, accuracies=accuracies))
    text = page(replace(records, finals=tuple(finals)), pictures=[], tables=[])
    assert f"(Kendall) {-1 if turned else 1:.2f} over {len(finals)} candidates" in text
    assert ("Warning: below" in text) == warns
