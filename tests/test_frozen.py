"""Runs and bundles that earlier releases wrote are read by this one.

`tests/frozen/VERSION.tar.xz` holds what a release wrote (see `support/freeze.py`). If a test
here fails after a change of a format, users' runs and bundles fail too: read the older format.
"""

import json
import runpy
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import dse
from dse.candidate import Candidate
from dse.cli import main
from dse.deploy.recipe import Recipe
from dse.deploy.verify import check_files
from dse.memory.model_content import FORMAT_VERSION
from dse.methods.alternatives import Subject
from dse.sampling.search_space import SearchSpace
from dse.search.baselines import baselines
from dse.search.load import load_run
from dse.search.run_models import run_models

VERSIONS = sorted((Path(__file__).parent / "frozen").iterdir())
RUNS = ("stock", "lean")
TRIALS = 4


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def frozen(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What a release wrote, unpacked."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def storage_of(frozen: Path, name: str) -> str | None:
    """The URL to give: a journal's was stored for another place."""
    return f"journal:///{frozen / 'journal.log'}" if name == "lean" else None


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_read_whole(frozen: Path, name: str) -> None:
    records = load_run(frozen / f"{name}-run", storage=storage_of(frozen, name))
    assert not records.trusted  # it was made elsewhere
    assert len([one for one in records.complete if one.baseline is None]) == TRIALS
    assert {one.kind for one in records.baselines} == {"unpruned", "uniform"}
    assert len(records.finals) == 2
    assert all(len(one.validation_accuracies) == 2 for one in records.finals)
    assert records.unpruned_peak_bytes > records.smallest_peak_bytes
    assert len(records.sessions) == 1


@pytest.mark.parametrize("name", RUNS)
def test_stored_memory_models_give_the_peaks_that_were_stored(frozen: Path, name: str) -> None:
    folder = frozen / f"{name}-run"
    records, models = load_run(folder, storage=storage_of(frozen, name)), run_models(folder)
    for trial in records.complete:
        model = models(trial.candidate)
        batch_size = trial.candidate.batch_size or records.study.training.batch_size
        peaks = model.peaks(trial.candidate.kept(model.groups), batch_size=batch_size)
        assert int(peaks) == trial.peak_bytes


@pytest.mark.parametrize("name", RUNS)
def test_the_baselines_of_a_run_are_those_that_were_stored(frozen: Path, name: str) -> None:
    folder = frozen / f"{name}-run"
    records = load_run(folder, storage=storage_of(frozen, name))
    model = run_models(folder)(Candidate())
    space = SearchSpace.resolve(records.study.space, model.groups)
    subject = Subject(study=records.study, network=nn.Identity(), space=space, model=model)
    stored = [(one.label, one.kind, one.ratio, one.candidate) for one in records.baselines]
    assert [(one.label, one.kind, one.ratio, one.candidate) for one in baselines(subject)] == stored


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_reported_and_picked_from(
    frozen: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, url = str(frozen / f"{name}-run"), storage_of(frozen, name)
    given = ["--trust", *([] if url is None else ["--storage", url])]
    assert main(["report", folder, *given]) == 0
    assert (Path(folder) / "report" / "index.html").stat().st_size > 100_000
    capsys.readouterr()
    assert main(["pick", folder, "--ram", "1GiB", "--max-drop", "100", *given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["feasible"]


@pytest.mark.parametrize("name", RUNS)
def test_a_bundle_is_whole_and_loads(frozen: Path, name: str) -> None:
    folder = frozen / f"{name}-bundle"
    recipe = Recipe.read(folder / "recipe.json")
    names = check_files(folder, recipe)
    assert {"weights.safetensors", "network.py", "finetune.py", "README.md"} <= set(names)
    network = dse.load(folder, lean=name == "lean", trust=True)
    logits = network(torch.zeros(2, *recipe.input_spec.shape))
    assert logits.shape == (2, recipe.classes)
    assert logits.isfinite().all()


def test_the_files_of_a_bundle_run_by_themselves(frozen: Path) -> None:
    """What was written is the user's: it must run whatever becomes of this package."""
    folder = frozen / "stock-bundle"
    namespace = runpy.run_path(str(folder / "network.py"))
    network = namespace["build"]()
    network.load_state_dict(safetensors.torch.load_file(folder / "weights.safetensors"))
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(network.eval()(images), dse.load(folder, trust=True)(images))


def newer_run(frozen: Path) -> list[str]:
    change(frozen / "stock-run" / "run.json", version=2, later={"field": 1})
    return ["report", str(frozen / "stock-run")]


def newer_recipe(frozen: Path) -> list[str]:
    change(frozen / "stock-bundle" / "recipe.json", version=3)
    return ["verify", str(frozen / "stock-bundle")]


def newer_database(frozen: Path) -> list[str]:
    with closing(sqlite3.connect(frozen / "stock-run" / "study.db")) as database:
        database.execute("UPDATE version_info SET schema_version = 999")
        database.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
        database.commit()
    return ["report", str(frozen / "stock-run")]


def newer_journal(frozen: Path) -> list[str]:
    with (frozen / "journal.log").open("a") as file:
        file.write('{"op_code": 99, "worker_id": "later"}\n')
    return ["report", str(frozen / "lean-run"), "--storage", str(storage_of(frozen, "lean"))]


def newer_setting(frozen: Path) -> list[str]:
    with (frozen / "stock-run" / "study.toml").open("a") as file:
        file.write("\n[later]\nsetting = 1\n")
    versions = {"dse": "999.1"}
    change(frozen / "stock-run" / "run.json", versions=versions)
    return ["report", str(frozen / "stock-run")]


def other_model(frozen: Path) -> list[str]:
    path = frozen / "stock-run" / "memory_model.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    header = json.loads(str(arrays["header"]))
    header["version"] = FORMAT_VERSION - 1
    np.savez_compressed(path, **{**arrays, "header": np.array(json.dumps(header))})
    return ["report", str(frozen / "stock-run")]


def change(path: Path, **changed: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changed}), "utf-8")


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (newer_run, "run.json was written by a newer release: update dse"),
        (newer_recipe, "has version 3, this release reads up to 2: update dse"),
        (newer_database, "was written by another release of Optuna"),
        (newer_journal, "was written by a newer release of Optuna than this one"),
        (newer_setting, "was written by dse 999.1, a newer release than this one"),
        (other_model, "this release reads {format}: delete it and run the study again"),
    ],
)
def test_another_format_is_refused_in_one_line_that_names_the_fix(
    frozen: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], list[str]],
    line: str,
) -> None:
    assert main(make(frozen)) == 2
    error = capsys.readouterr().err.strip()
    assert line.format(format=FORMAT_VERSION) in error
    assert "\n" not in error
    assert "update" in error or "run the study again" in error
