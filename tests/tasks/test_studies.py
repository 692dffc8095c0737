"""A study of each task from its data to its bundle, which then trains and is verified."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dse.cli import main
from support.task_studies import write_study

METRICS = {"multi-label": "mean-average-precision", "regression": "r2", "segmentation": "mean-iou"}


def run(*arguments: str | Path) -> None:
    assert main([str(one) for one in arguments]) == 0


def finetune(bundle: Path, *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(bundle / "finetune.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(METRICS))
def test_a_study_becomes_a_bundle_that_trains(
    kind: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # where the network's module lies
    study, out, bundle = write_study(tmp_path, kind), tmp_path / "run", tmp_path / "bundle"
    run("run", study, "--out", out)
    run("report", out)
    page = (out / "report" / "index.html").read_text("utf-8")
    assert METRICS[kind] in page.lower().replace(" ", "-") or kind == "regression"
    capsys.readouterr()
    run("pick", out, "--ram", "16 MiB", "--json")
    picked = json.loads(capsys.readouterr().out)
    assert picked["metric"] == METRICS[kind]
    run("export", out, "--ram", "16 MiB", "--out", bundle)
    recipe = json.loads((bundle / "recipe.json").read_text("utf-8"))
    assert recipe["task"]["kind"] == kind
    assert recipe["scores"][METRICS[kind]] == pytest.approx(recipe["accuracy"])
    table = () if kind == "segmentation" else ("--table", "table.csv")
    images = "." if kind == "segmentation" else "images"
    printed = finetune(bundle, images, *table, folder=tmp_path)
    assert f"{METRICS[kind]} 0." in printed
    assert "within" in printed
    run("verify", bundle, "--trust")


@pytest.mark.slow
def test_a_users_loss_and_metric_reach_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = """
loss = "task_nets:dice"
loss_options = {smooth = 0.5}
metric = "task_nets:wrong_pixels"
metric_range = [50.0, 0.0]
"""
    study = write_study(tmp_path, "segmentation", task=task)
    out, bundle = tmp_path / "run", tmp_path / "bundle"
    run("run", study, "--out", out)
    run("report", out)
    run("export", out, "--ram", "16 MiB", "--out", bundle)
    recipe = json.loads((bundle / "recipe.json").read_text("utf-8"))
    assert recipe["task"]["loss"] == "task_nets:dice"
    assert recipe["metric_range"] == [50.0, 0.0]
    worth = 1 - recipe["scores"]["task_nets:wrong_pixels"] / 50
    assert recipe["accuracy"] == pytest.approx(worth)
    printed = finetune(bundle, ".", folder=tmp_path)
    assert "task_nets:wrong_pixels" in printed
    run("verify", bundle, "--trust")
