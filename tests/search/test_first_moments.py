"""Runs that are stopped from their very first write on, by SIGKILL or by a full disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dse.search.run_folder import RunFolder
from support.searches import search, tiny_study

TESTS = Path(__file__).parents[1]


Starts = dict[str, list[tuple[str, str]]]


def starts(folder: Path, **steps: int) -> Starts:
    """Stop starts at every so-manieth write: how each ended, and how the next one did."""
    ways = [word for how, step in steps.items() for word in (how, str(step))]
    ended = subprocess.run(
        [sys.executable, TESTS / "support" / "dying_start.py", folder, *ways],
        env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: Starts = {how: [] for how in steps}
    for line in ended.stdout.splitlines():
        how, _place, *ends = line.split("\t")
        found[how].append((ends[0], ends[1]))
    assert all(rows.pop() == ("done", "") for rows in found.values())
    return found


@pytest.fixture(scope="module")
def some_starts(tmp_path_factory: pytest.TempPathFactory) -> Starts:
    return starts(tmp_path_factory.mktemp("starts"), kill=31, full=23)


def check(rows: list[tuple[str, str]], how: str) -> None:
    for ended, again in rows:
        assert again == "done", (ended, again)
        if how == "kill":
            assert ended == "killed"
        else:
            assert ended.startswith("RunError: "), ended
            assert "No space left on device" in ended or "disk is full" in ended, ended


@pytest.mark.parametrize("how", ["kill", "full"])
def test_a_start_that_was_stopped_at_some_write_goes_on(some_starts: Starts, how: str) -> None:
    assert len(some_starts[how]) >= 2
    check(some_starts[how], how)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "full"])
def test_a_start_that_was_stopped_at_any_write_goes_on(tmp_path: Path, how: str) -> None:
    rows = starts(tmp_path, **{how: 1})[how]
    assert len(rows) > 50
    check(rows, how)


@pytest.mark.parametrize(
    "name",
    ["study.db-shm", "study.db-wal", "study.db-journal", "run.json.partial", "study.toml.partial"],
)
def test_what_a_killed_start_may_leave_is_no_foreign_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    folder = RunFolder(tmp_path)
    folder.create()
    with folder.locked():
        assert (tmp_path / name).exists() == (".partial" not in name)


def test_half_written_files_are_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / "study.db.partial-xyz"
    left.mkdir()
    (left / "study.db").write_bytes(b"half")
    (tmp_path / "mine.partial").write_bytes(b"")
    (tmp_path / "run.json").write_bytes(b"{}")  # so that other files are let be
    folder = RunFolder(tmp_path)
    folder.create()
    with folder.locked():
        assert not left.exists()
    assert (tmp_path / "mine.partial").exists()


def test_an_empty_database_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"")
    assert search(tmp_path, tiny_study(trials=1, finalists=1)).complete
