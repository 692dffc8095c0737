import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import dse.search
from dse.config import JointConfig, SpaceConfig, with_flags
from dse.errors import ConfigError, RunError
from dse.results.candidate_records import BaselineRecord, FinalRecord, TrialRecord
from dse.search.load import load_run
from dse.search.run_file import RunFile
from dse.search.run_folder import RunFolder
from dse.search.setting_changes import first_difference
from support.searches import search, tiny_study


def test_records_survive_their_own_json(whole: Path) -> None:
    records = load_run(whole)
    for kind, rows in (
        (TrialRecord, records.trials),
        (BaselineRecord, records.baselines),
        (FinalRecord, records.finals),
    ):
        assert rows
        for row in rows:
            assert kind.from_json(json.loads(json.dumps(row.to_json()))) == row
    assert dse.search.load_run is load_run


def test_reading_changes_nothing_and_needs_no_lock(whole: Path) -> None:
    def listed() -> dict[str, float]:
        kept = (entry for entry in whole.iterdir() if not entry.name.startswith("study.db-"))
        return {entry.name: entry.stat().st_mtime for entry in kept}

    before = listed()
    with RunFolder(whole).locked():
        held = listed()
        load_run(whole)
        assert listed() == held
    assert listed().keys() == before.keys()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunError, match=r"is not a run folder: it has no run\.json"):
            load_run(folder)


def test_a_damaged_run_file_is_refused(finished: Path) -> None:
    (finished / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        load_run(finished)


def test_a_lost_database_is_named_and_not_created_anew(finished: Path) -> None:
    (finished / "study.db").unlink()
    with pytest.raises(RunError, match=r"has lost its study\.db"):
        load_run(finished)
    assert not (finished / "study.db").exists()


def test_a_lost_study_file_is_named(finished: Path) -> None:
    (finished / "study.toml").unlink()
    with pytest.raises(ConfigError, match=r"study\.toml: no such file"):
        load_run(finished)


def test_a_run_whose_storage_has_no_study_has_not_begun(finished: Path) -> None:
    with closing(sqlite3.connect(finished / "study.db")) as database:
        database.execute("UPDATE studies SET study_name = 'other'")
        database.commit()
    with pytest.raises(RunError, match="stopped before it began; run its study again"):
        load_run(finished)


def test_a_run_that_died_before_it_began_says_so(finished: Path) -> None:
    with closing(sqlite3.connect(finished / "study.db")) as database:
        database.execute("DELETE FROM study_user_attributes WHERE key = 'frame'")
        database.commit()
    with pytest.raises(RunError, match="stopped before it began; run its study again"):
        load_run(finished)
    assert len(search(finished).complete) == 6
    assert len(load_run(finished).complete) == 6


@pytest.mark.parametrize("step", ["phases.open_archive", "study.read_records"])
def test_a_run_stopped_before_its_first_trial_simply_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(f"dse.search.{step}", stopped)
        with pytest.raises(KeyboardInterrupt):
            search(out, tiny_study(trials=1))
    assert (out / "run.json").is_file()
    assert len(search(out, tiny_study(trials=1)).complete) == 1


def test_a_password_is_requested_and_never_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    url = "postgresql://me:s3cret@localhost:1/base"
    file = folder.describe(tiny_study(), storage=url)
    folder.write(file, tiny_study())
    assert "s3cret" not in (tmp_path / "run" / "run.json").read_text(encoding="utf-8")
    assert folder.storage_url(file, given=None) == "postgresql://me@localhost:1/base"
    assert folder.storage_url(file, given=url) == url
    assert folder.describe(tiny_study(), storage=url) == file


def test_the_first_setting_that_changes_results_is_named() -> None:
    study = tiny_study()
    longer = tiny_study(trials=99, timeout=1.0, finalists=9, uniform_baselines=())
    assert longer.meaning_digest == study.meaning_digest
    seeded = with_flags(longer, trials=None, timeout=None, seed=3)
    assert first_difference(study, seeded) == ("seed", "0", "3")
    sampled = tiny_study(trials=7, sampler="random")
    assert first_difference(study, sampled) == ("search.sampler", '"tpe"', '"random"')
    training = study.training.model_copy(update={"nesterov": True})
    other = study.model_copy(update={"training": training})
    assert first_difference(study, other) == ("training.nesterov", "false", "true")
    rooted = study.model_copy(
        update={"data": study.data.model_copy(update={"labels": None}), "seed": 0}
    )
    assert first_difference(study, rooted) == ("data.labels", '["1", "2", "3"]', "(not set)")
    joint = study.model_copy(
        update={"space": SpaceConfig(ratio=(0, 0.9), joint=JointConfig(batch_size=(4,)))}
    )
    plain = study.model_copy(update={"space": SpaceConfig(ratio=(0, 0.9))})
    assert first_difference(joint, plain)[0::2] == ("space.joint", "(not set)")
    assert first_difference(plain, joint)[0:2] == ("space.joint", "(not set)")
    with pytest.raises(ValueError, match="mean the same"):
        first_difference(study, longer)


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(RunError, match=r"holds 'thesis\.tex' but no run"):
        search(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunError, match="can't be used as a run folder"):
            search(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="can't be"):
        search(tmp_path)


def test_the_run_file_keeps_what_it_does_not_know_out(finished: Path) -> None:
    file = RunFolder(finished).read()
    assert RunFile.model_validate_json(file.model_dump_json()) == file
    assert file.versions.keys() >= {"python", "dse", "torch", "optuna"}
