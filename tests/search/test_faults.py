"""Faults with the real parts: processes that are killed or frozen, databases that go away.

Each adds a row to the table that `make faults` prints: what was lost, and how long it took until
the next training ended.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.faults import FaultTable
from support.postgres import Postgres

TESTS = Path(__file__).parents[1]
TRIALS = 8


@dataclass
class Team:
    """Worker processes of one study, and what they wrote down."""

    folder: Path
    url: str
    seconds: float = 0.3
    patience: float = 60.0
    workers: list[subprocess.Popen[str]] = field(default_factory=list)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, count: int = 1) -> None:
        for _ in range(count):
            own = str(self.folder / f"run{len(self.workers)}")
            given = [own, self.url, str(TRIALS), str(self.seconds), str(self.patience)]
            self.started.append(
                subprocess.Popen(
                    [sys.executable, TESTS / "support" / "worker.py", *given],
                    env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            self.workers.append(self.started[-1])

    def events(self, kind: str) -> list[tuple[float, int, str]]:
        log = self.folder / "log.txt"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        rows = (line.split() for line in lines)
        return [(float(when), int(who), key) for when, who, what, key in rows if what == kind]

    def wait_for(self, ended: int, kind: str = "ends", seconds: float = 120.0) -> None:
        until(lambda: len(self.events(kind)) >= ended, seconds)

    def finish(self, *, among: int | None = None, seconds: float = 200.0) -> list[str]:
        workers = self.workers if among is None else [self.workers[among]]
        return [one.communicate(timeout=seconds)[0].strip() for one in workers]

    def check_complete(self, *, repeated: int = 0) -> int:
        """No result was lost or repeated, except by what was interrupted; return how many were."""
        ended = Counter(key for _, _, key in self.events("ends"))
        begun = Counter(key for _, _, key in self.events("begins"))
        short = [key for key in ended if ":short:" in key]
        assert len(short) == TRIALS + 2  # and the baselines
        assert len(ended) == len(short) + 4  # two seeds of the unpruned network and of a finalist
        lost = sum(begun.values()) - len(ended)
        assert lost <= repeated, begun
        return lost

    def recovery_seconds(self, since: float) -> float:
        return min(when for when, _, _ in self.events("ends") if when > since) - since


def until(reached: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def team(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Team]:
    url = f"sqlite:///{tmp_path}/shared.db"
    if "postgres" in request.fixturenames:  # by its name or by usefixtures
        url = request.getfixturevalue("postgres").create(f"d{time.time_ns()}")
    team = Team(tmp_path, url)
    yield team
    for worker in team.started:
        if worker.poll() is None:
            worker.send_signal(signal.SIGCONT)
            worker.kill()
        if worker.stdout is not None and not worker.stdout.closed:
            worker.communicate()


@pytest.mark.faults
@pytest.mark.usefixtures("postgres")
def test_a_killed_worker(team: Team, faults: FaultTable) -> None:
    team.start(3)
    team.wait_for(3)
    victim = team.events("begins")[-1][1]
    os.kill(victim, signal.SIGKILL)
    died = time.time()
    for worker in team.workers:
        if worker.pid != victim:
            assert worker.communicate(timeout=200)[0].strip().endswith(f"done {TRIALS} 2")
    lost = team.check_complete(repeated=1)
    faults.add("worker killed (kill -9), two others go on", lost, team.recovery_seconds(died))


@pytest.mark.faults
@pytest.mark.parametrize("seconds", [3, 10, 30])
def test_a_database_that_is_away(
    team: Team, postgres: Postgres, faults: FaultTable, seconds: int
) -> None:
    team.start(2)
    team.wait_for(3)
    postgres.stop()
    time.sleep(seconds)
    postgres.start()
    back = time.time()
    assert all(text.endswith(f"done {TRIALS} 2") for text in team.finish())
    lost = team.check_complete()
    faults.add(f"PostgreSQL away for {seconds} s", lost, team.recovery_seconds(back))


@pytest.mark.faults
def test_a_database_that_freezes(team: Team, postgres: Postgres, faults: FaultTable) -> None:
    team.start(2)
    team.wait_for(3)
    postgres.freeze()
    time.sleep(40)
    postgres.thaw()
    back = time.time()
    assert all(text.endswith(f"done {TRIALS} 2") for text in team.finish())
    faults.add("PostgreSQL frozen for 40 s", team.check_complete(), team.recovery_seconds(back))


@pytest.mark.faults
def test_a_stop_while_the_database_is_frozen(
    team: Team, postgres: Postgres, faults: FaultTable
) -> None:
    team.start(1)
    team.wait_for(3)
    postgres.freeze()
    time.sleep(2)
    team.workers[0].send_signal(signal.SIGTERM)
    sent = time.time()
    try:
        text = team.finish(seconds=30)[0]
        took = time.time() - sent
    finally:
        postgres.thaw()
    assert text.endswith("interrupted")
    assert team.workers[0].returncode == 130
    team.workers.clear()
    team.start(1)  # in the same folder
    assert team.finish()[0].endswith(f"done {TRIALS} 2")
    faults.add("SIGTERM while PostgreSQL is frozen", team.check_complete(repeated=1), took)


@pytest.mark.faults
def test_a_database_that_is_gone_for_good(
    team: Team, postgres: Postgres, faults: FaultTable
) -> None:
    team.patience = 2.0
    team.start(1)
    team.wait_for(3)
    postgres.stop()
    try:
        text = team.finish()[0]
    finally:
        postgres.start()
    assert "stopped answering" in text
    assert team.workers[0].returncode == 2
    team.workers.clear()
    back = time.time()
    team.start(1)
    assert team.finish()[0].endswith(f"done {TRIALS} 2")
    lost = team.check_complete()
    faults.add("PostgreSQL gone until the next run", lost, team.recovery_seconds(back))


@pytest.mark.faults
def test_a_database_file_that_is_locked_for_20_s(team: Team, faults: FaultTable) -> None:
    team.start(1)
    team.wait_for(3)
    with closing(sqlite3.connect(team.folder / "shared.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(20)
    back = time.time()
    assert team.finish()[0].endswith(f"done {TRIALS} 2")
    lost = team.check_complete()
    faults.add("SQLite locked for 20 s", lost, team.recovery_seconds(back))


@pytest.mark.faults
@pytest.mark.usefixtures("postgres")
def test_a_worker_that_freezes_and_comes_back(team: Team, faults: FaultTable) -> None:
    team.start(2)
    team.wait_for(3)
    frozen = team.workers[0]
    frozen.send_signal(signal.SIGSTOP)
    stopped = time.time()
    assert team.workers[1].communicate(timeout=200)[0].strip().endswith(f"done {TRIALS} 2")
    took = team.recovery_seconds(stopped)
    frozen.send_signal(signal.SIGCONT)
    assert frozen.communicate(timeout=200)[0].strip().endswith(f"done {TRIALS} 2")
    ended = Counter(key for _, _, key in team.events("ends"))
    # What it was training was given to the other worker, and it ends it all the same.
    assert sum(ended.values()) - len(ended) <= 1
    faults.add("worker frozen for minutes, comes back", sum(ended.values()) - len(ended), took)


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal(team: Team, faults: FaultTable, number: signal.Signals) -> None:
    team.url = "own"
    team.start(1)
    team.wait_for(4)
    team.workers[0].send_signal(number)
    sent = time.time()
    assert team.finish()[0].endswith("interrupted")
    took = time.time() - sent
    team.workers.clear()
    team.start(1)
    assert team.finish()[0].endswith(f"done {TRIALS} 2")
    faults.add(f"{number.name}, then run again", team.check_complete(repeated=1), took)


@pytest.mark.faults
def test_a_folder_that_is_deleted(team: Team, faults: FaultTable) -> None:
    team.url = "own"
    team.start(1)
    team.wait_for(3)
    shutil.rmtree(team.folder / "run0")
    deleted = time.time()
    assert "was deleted while the run was working in it" in team.finish()[0]
    faults.add("run folder deleted while it runs: ends", 3, time.time() - deleted)


@pytest.mark.faults
@pytest.mark.usefixtures("postgres")
def test_a_copied_folder_leaves_the_live_workers_trial_alone(
    team: Team, faults: FaultTable
) -> None:
    team.seconds = 1.0
    team.start(1)
    team.wait_for(3)
    shutil.copytree(team.folder / "run0", team.folder / "run1")
    copied = time.time()
    team.start(1)
    assert all(text.endswith(f"done {TRIALS} 2") for text in team.finish())
    lost = team.check_complete()
    faults.add("copy of a run folder joins", lost, team.recovery_seconds(copied))
