"""`dse compare` on real run folders."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest

import dse
from dse.cli import main
from support.searches import search, tiny_study

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/schemas/compare-1.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two samplers with two seeds each."""
    place = tmp_path_factory.mktemp("runs")
    for sampler in ("tpe", "random"):
        for seed in (0, 1):
            study = tiny_study(sampler=sampler).model_copy(update={"seed": seed})
            search(place / f"{sampler}-{seed}", study)
    return place


@pytest.fixture(autouse=True)
def _few_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests write the other formats, which takes seconds."""
    monkeypatch.setattr("dse.report.compare_write.PAPER_FORMATS", ("svg",))


def folders(runs: Path) -> list[str]:
    return [str(runs / name) for name in ("tpe-0", "tpe-1", "random-0", "random-1")]


def test_runs_are_grouped_by_what_differs(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["compare", *folders(runs), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "sampler tpe" in printed
    assert "sampler random" in printed
    assert "Best accuracy within each budget" in printed
    for line in printed.split("Report: ")[1].splitlines():
        assert Path(line.strip()).is_file()


def test_groups_by_name_and_pattern(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = ["--group", f"a={runs}/tpe-*", "--group", f"b={runs}/random-0"]
    groups += ["--group", f"b={runs}/random-1", "--reference", "256KiB", "--fidelity", "full"]
    assert main(["compare", *groups, "--out", str(tmp_path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    jsonschema.validate(answer, SCHEMA)
    assert [(one["label"], len(one["runs"])) for one in answer["groups"]] == [("a", 2), ("b", 2)]
    assert answer["reference_peak_bytes"] == 256 * 1024
    assert answer["fidelity"] == "full"


def test_a_running_or_copied_run_is_only_read(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs / "tpe-0", copy)
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    status = main(["compare", str(copy), str(runs / "tpe-0"), "--out", str(tmp_path / "out")])
    assert status == 0
    assert "have the same seed, which repeats nothing" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give run folders, or groups"),
        (["{0}", "--group", "a={1}"], "give run folders, or groups"),
        (["{0}"], "at least two runs"),
        (["{0}", "{0}"], "is given twice"),
        (["--group", "{0}"], "is not of the form NAME=RUN,RUN"),
        (["--group", "a=,"], "is not of the form NAME=RUN,RUN"),
        (["--group", "a={runs}/nothing-*"], "there is no"),
        (["{0}", "{runs}"], "is not a run folder"),
        (["{0}", "{1}", "--fidelity", "ful"], "use short or full; did you mean full?"),
        (["{0}", "{1}", "--reference", "0"], "--reference must be above 0"),
        (["{0}", "{1}", "--reference", "much"], "--reference: "),
        (["{0}", "{1}", "--out", "{0}/study.toml"], "can't be written"),
    ],
)
def test_what_is_wrong_is_one_line(
    runs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    given = [one.format(*folders(runs), runs=runs) for one in arguments]
    assert main(["compare", *given]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_in_a_notebook(runs: Path) -> None:
    opened = {
        name: [dse.open_run(runs / f"{name}-{seed}") for seed in (0, 1)]
        for name in ("tpe", "random")
    }
    found = dse.compare_runs(opened)
    assert list(found.groups.index) == ["tpe", "random"]
    assert found.groups.loc["tpe", "runs"] == 2
    assert list(found.runs.index) == ["tpe-0", "tpe-1", "random-0", "random-1"]
    assert repr(found) == "RunComparison(tpe: 2, random: 2)"
    assert "<table" in found._repr_html_()
    listed = dse.compare_runs([one for members in opened.values() for one in members])
    assert list(listed.groups.index) == ["sampler tpe", "sampler random"]
