"""Workers that share a study: what each claims, and who is taken for dead."""

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage

from dse.search.handing_out import Job, hand_out
from dse.search.storage import open_storage
from dse.search.workers import Alone, Colleagues, Pace, Watch, Workers, claimed

FAST = Pace(beat_seconds=0.05, grace_seconds=0.4, poll_seconds=0.01)


@pytest.fixture(params=["sqlite:///{}/study.db", "journal:///{}/study.log"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> BaseStorage:
    return open_storage(request.param.format(tmp_path))


def until(reached: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_piece_of_work_is_claimed_by_one_worker(storage: BaseStorage) -> None:
    won: list[int] = []
    barrier = threading.Barrier(4)

    def claim(number: int) -> None:
        with Workers(storage, "study", pace=FAST) as workers:
            barrier.wait()
            if workers.take("unpruned"):
                won.append(number)
            barrier.wait()

    threads = [threading.Thread(target=claim, args=(one,)) for one in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_claim_is_free_again_after_its_worker_left_or_died(storage: BaseStorage) -> None:
    with Workers(storage, "study", pace=FAST) as one:
        with Workers(storage, "study", pace=FAST) as other:
            assert other.take("a")
            assert other.take("b")
            assert not one.take("a")
            other.release("a")
            assert one.take("a")
            assert not one.take("b")
        assert one.take("b")  # it left
        dying = Workers(storage, "study", pace=FAST)
        dying.__enter__()
        assert dying.take("c")
        dying._over.set()  # its heart stops, as if it were killed
        assert not one.take("c")
        until(lambda: one.take("c"))
        assert one.living() == {one.number}


def test_a_worker_that_was_taken_for_dead_joins_anew(storage: BaseStorage) -> None:
    with Workers(storage, "study", pace=FAST) as one, Workers(storage, "study", pace=FAST) as two:
        before = two.number
        one._end(before)
        until(lambda: two.number != before)
        assert two.number in one.living()
        assert before not in one.living()


def test_an_earlier_worker_of_the_same_locked_folder_is_dead_at_once(storage: BaseStorage) -> None:
    slow = Pace(beat_seconds=60.0, grace_seconds=600.0)
    killed = Workers(storage, "study", place="here", pace=slow)
    killed.__enter__()
    elsewhere = Workers(storage, "study", place="copied", pace=slow)
    elsewhere.__enter__()
    with Workers(storage, "study", place="here", pace=slow) as again:
        assert again.living() == {again.number, elsewhere.number}
    elsewhere.__exit__()


def test_what_nobody_watched_is_not_held_against_a_worker() -> None:
    watch = Watch(grace_seconds=10.0, longest_seconds=4.0)
    assert watch.look({"a": 1, "b": 1}, now=0.0) == set()
    assert watch.look({"a": 1, "b": 2}, now=1000.0) == set()  # the watcher was frozen
    assert watch.look({"a": 1, "b": 3}, now=1004.0) == set()
    assert watch.look({"a": 1, "b": 3}, now=1008.0) == {"a"}
    assert watch.look({"a": 2, "b": 3}, now=1011.0) == set()


def test_jobs_are_shared_and_every_worker_reads_all_results(storage: BaseStorage) -> None:
    done: list[str] = []

    def work(colleagues: Colleagues, read: list[str]) -> None:
        def run(name: str) -> None:
            if name not in done:
                time.sleep(0.02)
                done.append(name)
            read.append(name)

        jobs = [
            Job(key=name, is_done=lambda name=name: name in done, run=lambda name=name: run(name))
            for name in "abcdef"
        ]
        hand_out(jobs, colleagues)

    def join(read: list[str]) -> None:
        with Workers(storage, "study", pace=FAST) as workers:
            work(workers, read)

    reads: list[list[str]] = [[], [], []]
    threads = [threading.Thread(target=join, args=(read,)) for read in reads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list("abcdef")
    assert [sorted(read) for read in reads] == [list("abcdef")] * 3
    alone: list[str] = []
    work(Alone(), alone)
    assert alone == list("abcdef")


def test_a_claim_is_waited_for(storage: BaseStorage) -> None:
    with Workers(storage, "study", pace=FAST) as one, Workers(storage, "study", pace=FAST) as two:
        assert one.take("a")
        threading.Timer(0.1, lambda: one.release("a")).start()
        began = time.monotonic()
        with claimed(two, "a"):
            assert time.monotonic() - began > 0.05
        assert optuna.load_study(study_name="study (workers)", storage=storage).trials


def test_more_workers_look_less_often(storage: BaseStorage) -> None:
    pace = Pace(beat_seconds=0.05, grace_seconds=60.0, poll_seconds=0.1, few=1)

    def pause_of(worker: Workers) -> float:
        worker.living()
        start = time.monotonic()
        worker.pause()
        return time.monotonic() - start

    with Workers(storage, "study", pace=pace) as one:
        assert pause_of(one) >= 0.1
        with Workers(storage, "study", pace=pace), Workers(storage, "study", pace=pace):
            assert pause_of(one) >= 0.3


def test_waiting_for_many_pieces_of_work_takes_one_look(
    storage: BaseStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Pace(beat_seconds=60.0, grace_seconds=600.0)
    with Workers(storage, "study", pace=slow) as one, Workers(storage, "study", pace=slow) as two:
        keys = [f"piece {number}" for number in range(10)]
        for key in keys:
            assert one.take(key)
        done: set[str] = set()
        read: list[str] = []
        looks: list[object] = []
        look = two._look
        monkeypatch.setattr(two, "_look", lambda: looks.append(None) or look())
        monkeypatch.setattr(two, "pause", lambda: done.update(keys))
        hand_out(
            [
                Job(key=key, is_done=lambda k=key: k in done, run=partial(read.append, key))
                for key in keys
            ],
            two,
        )
        assert read == keys
        assert len(looks) == 2  # before the pause and after it
