"""`--paper` of real runs: an archive that compiles."""

import json
import zipfile
from pathlib import Path

import jsonschema
import pytest

from dse.cli import main
from support.latex import compiled, needs_latex
from support.searches import search, tiny_study
from support.tiny import TinyRun

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, str]]:
    capsys.readouterr()
    assert main([*arguments, "--paper", "--json"]) == 0
    found: dict[str, dict[str, str]] = json.loads(capsys.readouterr().out)
    schema = json.loads((SCHEMAS / f"{arguments[0]}-1.json").read_text("utf-8"))
    jsonschema.validate(found, schema)
    return found


@pytest.mark.slow
@needs_latex
def test_a_runs_archive_compiles(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    found = answer(capsys, "report", str(tiny_run.folder), "--ram", "1MiB", "--out", str(out))
    with zipfile.ZipFile(found["paper"]["archive"]) as file:
        file.extractall(tmp_path / "unpacked")
    compiled(tmp_path / "unpacked" / "paper", "sample", bibliography=True)
    method = (tmp_path / "unpacked/paper/method.tex").read_text("utf-8")
    assert "Of 6 trials 5 were trained (2 of them baselines that were entered" in method
    assert "in full (4 epochs, 2 seeds)" in method


@needs_latex
def test_a_comparisons_archive_compiles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dse.report.compare_write.PAPER_FORMATS", ("pdf",))
    runs = []
    for seed in (0, 1):
        runs.append(tmp_path / f"run_{seed}")
        search(runs[-1], tiny_study().model_copy(update={"seed": seed}))
    found = answer(capsys, "compare", *map(str, runs), "--out", str(tmp_path / "out"))
    folder = Path(found["paper"]["folder"])
    compiled(folder, "sample", bibliography=True)
    method = (folder / "method.tex").read_text("utf-8")
    assert "We compare tiny (2 runs, seeds 0, 1)" in method
    assert r"\cite{grunert2001attainment,fonseca2011attainment}" in method
    capsys.readouterr()
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "out"), "--paper"]) == 0
    assert "For a paper: " in capsys.readouterr().out
