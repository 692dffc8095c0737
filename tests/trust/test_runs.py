"""A run folder from elsewhere runs no code and opens no host; the user's own goes on as before."""

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from dse.cli import main
from dse.config import Study
from dse.errors import RunError
from dse.search.load import load_run
from dse.search.run_folder import RunFolder
from dse.trust.seal import STATE_VARIABLE
from dse.trust.studies import modules_inside, objection_to_study
from support.runs import make_study
from support.searches import search, tiny_study
from support.tiny import TinyRun

PICK = ("--ram", "10MiB", "--max-drop", "100")


@pytest.fixture
def copied(tiny_run: TinyRun, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run.folder, tmp_path / "copied"))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another machine: it has no secret, or one of its own."""
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "elsewhere"))
    return tmp_path


def change_run(folder: Path, **changed: Any) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changed}), "utf-8")


def change_study(folder: Path, old: str, new: str) -> None:
    path = folder / "study.toml"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def canary(folder: Path) -> str:
    """A module that leaves a trace if it is ever imported; returns its name."""
    name = f"canary_{abs(hash(folder))}"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(
        f"from pathlib import Path\nPath({str(folder / 'trace')!r}).touch()\n"
        "def make(num_classes=2, **_):\n    raise SystemExit(0)\n",
        encoding="utf-8",
    )
    return name


def test_the_users_own_runs_go_on_without_a_word(
    tiny_run: TinyRun, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pick", str(tiny_run.folder), *PICK]) == 0
    assert load_run(copied).trusted  # moved or copied, it is the user's all the same
    assert "trust" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [("pick", *PICK), ("report", *PICK), ("export", "--trial", "0")]
)
def test_a_run_from_elsewhere_is_refused_until_it_is_trusted(
    copied: Path,
    elsewhere: Path,
    command: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, *flags = command
    flags += ["--out", str(elsewhere / "out")] if name != "pick" else []
    assert main([name, str(copied), *flags]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "was not made on this machine, and network 'tiny_network:" in error
    assert "give --trust" in error
    assert not (elsewhere / "out").exists()


def test_trust_lets_it_through(copied: Path, elsewhere: Path) -> None:
    assert elsewhere.exists()
    assert main(["pick", str(copied), *PICK, "--trust"]) == 0


def test_a_folder_cannot_vouch_for_itself(copied: Path, tmp_path: Path) -> None:
    for changed in ({"seal": None}, {"seal": "0" * 64}, {"identity": "mine"}):
        folder = Path(shutil.copytree(copied, tmp_path / str(len(str(changed)))))
        change_run(folder, **changed)
        assert not load_run(folder).trusted
    change_study(copied, 'name = "tiny_network:', 'name = "os:')
    assert not load_run(copied).trusted


@pytest.mark.parametrize("key", ["network", "data", "loss", "metric"])
def test_nothing_of_a_strangers_run_is_imported(
    copied: Path,
    elsewhere: Path,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = canary(copied)
    monkeypatch.chdir(copied)
    if key == "network":
        change_study(copied, 'name = "tiny_network:Tiny"', f'name = "{name}:make"')
    else:
        change_study(copied, 'name = "tiny_network:Tiny"', 'name = "torchvision:resnet18"')
    if key == "data":
        change_study(copied, 'name = "digits"', f'name = "{name}:make"\nroot = "{copied}"')
    elif key in ("loss", "metric"):
        path = copied / "study.toml"
        table = tomllib.loads(path.read_text("utf-8"))
        own = {key: f"{name}:make", **({"metric_range": [0.0, 1.0]} if key == "metric" else {})}
        path.write_text(tomli_w.dumps({**table, "task": {**table.get("task", {}), **own}}), "utf-8")
    out = ("--out", str(elsewhere / "out"))
    assert main(["export", ".", "--trial", "0", *out]) == 2
    assert name in capsys.readouterr().err
    if key != "data":
        assert main(["pick", ".", *PICK]) == 2
        assert f"{name}:make' runs code" in capsys.readouterr().err
    assert not (copied / "trace").exists()


def test_a_module_of_the_same_name_elsewhere_does_not_pass_for_the_sealed_one(
    tiny_run: TinyRun, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tiny_run.study.parent / "tiny_network.py"
    aside = module.with_suffix(".aside")
    module.rename(aside)
    try:
        (copied / "tiny_network.py").write_text("raise SystemExit\n", encoding="utf-8")
        monkeypatch.chdir(copied)
        assert not load_run(copied).trusted
    finally:
        aside.rename(module)
    assert load_run(copied).trusted


def test_modules_inside_the_run_folder_are_never_vouched_for(tmp_path: Path) -> None:
    name = canary(tmp_path / "run")
    study = make_study(network=f"{name}:make").model_copy(update={"source_dir": tmp_path / "run"})
    assert modules_inside(tmp_path / "run", study)
    assert not modules_inside(tmp_path / "other", study)


HOST = "postgresql://someone@db.invalid/trials"


def test_no_host_is_opened_that_only_the_folder_names(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_run(copied, storage=HOST)
    assert main(["report", str(copied)]) == 2
    error = capsys.readouterr().err
    assert "give that URL with --storage, or --trust" in error
    assert "db.invalid" in error


def test_a_run_does_not_go_on_at_a_host_that_only_the_folder_names(tmp_path: Path) -> None:
    study = tiny_study(trials=1)
    search(tmp_path / "run", study)
    change_run(tmp_path / "run", storage=HOST)
    with pytest.raises(RunError, match="give that URL with --storage, or --trust"):
        search(tmp_path / "run", study)


def test_a_storage_of_ones_own_is_found_again(tmp_path: Path) -> None:
    study, url = tiny_study(trials=1), f"sqlite:///{tmp_path}/own.db"
    search(tmp_path / "run", study, storage=url)
    assert len(load_run(tmp_path / "run").complete) >= 1
    search(tmp_path / "run", study)


def test_a_database_that_is_a_link_is_left_alone(copied: Path, elsewhere: Path) -> None:
    (copied / "study.db").rename(elsewhere / "theirs.db")
    (copied / "study.db").symlink_to(elsewhere / "theirs.db")
    with pytest.raises(RunError, match=r"its study\.db is not a file of its own"):
        load_run(copied)
    assert load_run(copied, trust=True).complete


def study_with(**tables: Any) -> Study:
    study = make_study()
    for table, keys in tables.items():
        study = study.model_copy(update={table: getattr(study, table).model_copy(update=keys)})
    return study


def test_harmless_studies_need_no_trust() -> None:
    assert objection_to_study(make_study()) is None
    assert objection_to_study(study_with(network={"weights": "pretrain"})) is None
    assert objection_to_study(study_with(network={"weights": "/a/b.safetensors"})) is None
    assert objection_to_study(study_with(data={"name": "folder"})) is None


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ({"network": {"name": "a.b:c"}}, "runs code"),
        ({"network": {"weights": "DEFAULT"}}, "network.weights = 'DEFAULT' may be downloaded"),
        ({"network": {"weights": "/a/b.pth"}}, "may be downloaded or unpickled"),
        ({"data": {"name": "a.b:c"}}, "data.name = 'a.b:c' runs code"),
        ({"task": {"loss": "a.b:c"}}, "task.loss = 'a.b:c' runs code"),
        ({"task": {"metric": "a.b:c"}}, "task.metric = 'a.b:c' runs code"),
        ({"data": {"name": "torchvision:CIFAR10"}}, "may be downloaded or unpickled"),
    ],
)
def test_what_runs_code_or_downloads_needs_trust(tables: dict[str, Any], reason: str) -> None:
    assert reason in str(objection_to_study(study_with(**tables)))


def test_a_run_folder_is_its_makers_own(tmp_path: Path) -> None:
    search(tmp_path / "run", tiny_study(trials=1))
    folder = RunFolder(tmp_path / "run")
    assert folder.is_own(folder.read())
