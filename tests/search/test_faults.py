"""Faults with the real parts: processes that are killed or frozen, databases that go away.

Each adds a row to the table that `make faults` prints: what was lost, and how long it took until
the next training ended.
"""

import os
import shutil
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import pytest

from dse.search.journal_repair import repair_journal
from support.faults import FaultTable
from support.postgres import Postgres
from support.team import DONE, Team, until


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
            assert worker.communicate(timeout=200)[0].strip().endswith(DONE)
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
    assert all(text.endswith(DONE) for text in team.finish())
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
    assert all(text.endswith(DONE) for text in team.finish())
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
    team.again()
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
    back = time.time()
    team.again()
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
    assert team.finish()[0].endswith(DONE)
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
    assert team.workers[1].communicate(timeout=200)[0].strip().endswith(DONE)
    took = team.recovery_seconds(stopped)
    frozen.send_signal(signal.SIGCONT)
    assert frozen.communicate(timeout=200)[0].strip().endswith(DONE)
    ended = Counter(key for _, _, key in team.events("ends"))
    # What it was training was given to the other worker, and it ends it all the same.
    assert sum(ended.values()) - len(ended) <= 1
    faults.add(
        "worker frozen for longer than the grace, comes back",
        sum(ended.values()) - len(ended),
        took,
    )


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
    assert all(text.endswith(DONE) for text in team.finish())
    lost = team.check_complete()
    faults.add("copy of a run folder joins", lost, team.recovery_seconds(copied))


@pytest.mark.faults
def test_a_disk_that_fills_up(
    team: Team, faults: FaultTable, undisturbed: frozenset[str], small_disk: Path
) -> None:
    team.url = "own"
    (team.folder / "run0").symlink_to(small_disk / "run", target_is_directory=True)
    (small_disk / "run").mkdir()
    team.start()
    team.wait_for(4)
    filler = small_disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    text = team.finish()[0]
    assert "disk is full" in text or "No space left on device" in text, text
    assert team.workers[0].returncode == 2
    filler.unlink()
    freed = time.time()
    team.again()
    lost = team.check_complete(repeated=1, like=undisturbed)
    faults.add("disk full, then run again", lost, team.recovery_seconds(freed))


@pytest.mark.faults
def test_a_torn_journal(team: Team, faults: FaultTable) -> None:
    journal = team.folder / "study.log"
    team.url = f"journal:///{journal}"
    team.start(2)
    team.wait_for(4)
    for worker in team.workers:
        worker.kill()
        worker.wait()
    with journal.open("ab") as file:
        file.write(b'{"op_code": 8, "worker_id": "half')
    team.workers.clear()
    team.start()
    assert "dse doctor may repair it" in team.finish()[0]
    assert repair_journal(journal).dropped == 1
    repaired = time.time()
    team.workers.clear()
    team.start(2)
    assert all(text.endswith(DONE) for text in team.finish())
    lost = team.check_complete(repeated=2)
    took = team.recovery_seconds(repaired)
    faults.add("two workers killed, journal torn: dse doctor, then run again", lost, took)


@pytest.mark.faults
@pytest.mark.usefixtures("postgres")
def test_clocks_that_are_minutes_apart(team: Team, faults: FaultTable) -> None:
    team.seconds = 2.0
    team.start(TEST_CLOCK_SECONDS="420")
    team.start(TEST_CLOCK_SECONDS="-420")
    team.start()
    until(lambda: len({who for _, who, _ in team.events("begins")}) == 3, 120.0)
    clocks = {round((when - time.time()) / 60) for when, _, _ in team.events("begins")}
    assert clocks == {-7, 0, 7}  # all three train
    here = team.workers[2].pid
    os.kill(here, signal.SIGKILL)
    died = time.monotonic()
    before = len(team.events("ends"))
    team.wait_for(before + 1)
    took = time.monotonic() - died
    assert all(
        worker.communicate(timeout=200)[0].strip().endswith(DONE) for worker in team.workers[:2]
    )
    lost = team.check_complete(repeated=1)
    faults.add("clocks 14 minutes apart, and one of three workers killed", lost, took)


@pytest.mark.faults
def test_ten_failures_in_a_row(team: Team, faults: FaultTable) -> None:
    team.url, team.trials = "own", 16
    team.start(TEST_FAILING="4")  # two baselines and two trials end
    text = team.finish()[0]
    assert "10 candidates in a row could not be trained" in text
    assert text.endswith("ValueError: no such image")
    assert team.workers[0].returncode == 2
    ended = time.time()
    team.again(done="done 6 2")  # failed trials count, and are not trained again
    begun = Counter(key for _, _, key in team.events("begins"))
    assert set(begun.values()) == {1}
    faults.add(
        "ten trainings in a row fail: it ends, then run again", 0, team.recovery_seconds(ended)
    )
