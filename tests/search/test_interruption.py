"""Runs that are stopped, one way or another, and go on."""

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState

from dse.config import SpaceConfig
from dse.errors import RunError
from dse.results.records import RunRecords
from dse.sampling.search_space import SearchSpace
from dse.search.load import load_run
from dse.search.progress import Silent
from dse.search.resume import ATTEMPTS, recover
from dse.search.run_folder import RunFolder
from dse.search.storage import open_storage
from dse.search.storage_urls import sqlite_url
from dse.search.study import carry_out
from dse.search.workers import Alone, Workers
from support.searches import (
    Formula,
    memory_model,
    resolver,
    search,
    tiny_study,
    trained,
)

TESTS = Path(__file__).parents[1]


def candidates(records: RunRecords) -> list[str]:
    return [trial.candidate.digest for trial in records.complete]


def finals(records: RunRecords) -> list[str]:
    return [final.candidate.digest for final in records.finals]


def stopping(*counts: int, by: signal.Signals) -> Callable[[int], None]:
    """Send this process a signal in the midst of chosen trainings."""

    def before(count: int) -> None:
        if count in counts:
            os.kill(os.getpid(), by)

    return before


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_itself_and_goes_on(
    tmp_path: Path, whole: Path, by: signal.Signals
) -> None:
    out = tmp_path / "stopped" / "run"
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        search(out, before=stopping(5, by=by))  # the third trial that is trained
    assert signal.getsignal(signal.SIGTERM) is handler

    stopped = load_run(out)
    assert len(stopped.complete) == 2
    failed = [trial for trial in stopped.trials if trial.state == "failed"]
    assert len(failed) == 1
    records = search(out)
    undisturbed = load_run(whole)
    assert candidates(records) == candidates(undisturbed)
    assert finals(records) == finals(undisturbed)
    assert failed[0].candidate in [trial.candidate for trial in records.complete]
    assert sorted(trained(out)) == sorted(trained(whole))
    retried = next(t for t in records.complete if t.candidate == failed[0].candidate)
    assert retried.params == failed[0].params
    assert retried.number > failed[0].number


def test_a_signal_that_comes_twice_stops_once(tmp_path: Path) -> None:
    def before(count: int) -> None:
        if count == 4:
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:  # as if the second came while the first is handled
                os.kill(os.getpid(), signal.SIGINT)
                saved.append(count)

    saved: list[int] = []
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        search(out, tiny_study(trials=2), before=before)
    assert saved == [4]
    assert len(search(out, tiny_study(trials=2)).complete) == 2


def test_a_stop_that_a_library_swallows_still_stops(tmp_path: Path) -> None:
    def before(count: int) -> None:
        if count == 4:
            with contextlib.suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        search(out, tiny_study(trials=2), before=before)
    assert len(trained(out)) == 3
    assert [trial.state for trial in load_run(out).trials].count("failed") == 1
    assert len(search(out, tiny_study(trials=2)).complete) == 2


def test_stopping_outside_the_trials_loses_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        search(out, before=stopping(2, by=signal.SIGINT))  # a baseline
    assert [baseline.label for baseline in load_run(out).baselines] == ["unpruned"]
    with pytest.raises(KeyboardInterrupt):
        search(out, before=stopping(9, by=signal.SIGINT))  # the second seed of the first final
    assert load_run(out).finals == ()
    records = search(out)
    assert len(records.finals) == 3
    assert len(trained(out)) == len(set(trained(out)))


def test_kill_9_at_any_moment_loses_at_most_the_training_under_way(
    tmp_path: Path, whole: Path
) -> None:
    commits = (7, 40, 45, 20, 20)
    out = tmp_path / "killed" / "run"
    ended = subprocess.run(
        [sys.executable, TESTS / "support" / "dying_search.py", out, *map(str, commits)],
        env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.split() == [str(-signal.SIGKILL)] * len(commits)
    before = load_run(out)  # readable as it was left
    assert 0 < len(before.complete) < 6

    records = search(out)
    undisturbed = load_run(whole)
    assert candidates(records) == candidates(undisturbed)
    assert finals(records) == finals(undisturbed)
    assert records.trials_by_state["running"] == 0
    twice = Counter(trained(out)) - Counter(set(trained(out)))
    assert twice.total() <= len(commits)  # what was under way when a process died
    assert set(trained(out)) == set(trained(whole))


def test_a_folder_in_use_names_the_process_and_can_be_read(whole: Path) -> None:
    with (
        RunFolder(whole).locked(),
        pytest.raises(RunError, match=rf"is in use by process {os.getpid()}; wait"),
    ):
        search(whole)
    assert len(load_run(whole).complete) == 6


def left_running(path: Path, **attributes: object) -> tuple[optuna.Study, SearchSpace]:
    """A study with a trial under way whose draw is complete."""
    storage = open_storage(sqlite_url(path))
    archive = optuna.create_study(storage=storage, study_name="s", directions=["maximize"] * 2)
    space = SearchSpace.resolve(SpaceConfig(ratio=(0.0, 0.9)), memory_model().groups)
    trial = archive.ask()
    space.draw(trial)
    for key, value in attributes.items():
        trial.set_user_attr(key, value)
    return archive, space


def states(archive: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in archive.get_trials()]


def test_only_trials_of_dead_workers_are_taken_up_from_a_shared_storage(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    archive, space = left_running(path, worker=3, admitted="{}", peak_bytes=7)
    storage = open_storage(sqlite_url(path))
    with Workers(storage, archive.study_name) as workers:
        present = SimpleNamespace(living=lambda: frozenset({3}), stale=workers.stale)
        assert recover(archive, storage, space, colleagues=present) == 0
        assert states(archive) == [TrialState.RUNNING]
        assert recover(archive, storage, space, colleagues=workers) == 1
        assert states(archive) == [TrialState.FAIL, TrialState.WAITING]
        waiting = archive.get_trials()[1]
        kept = {"admitted": "{}", "peak_bytes": 7}
        assert waiting.user_attrs == {"retry_of": 0, "attempt": 2, **kept}
        assert waiting.constraints == {}
        assert recover(archive, storage, space, colleagues=workers) == 0
    storage.engine.dispose()


def test_a_trial_without_an_owner_is_given_time(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    archive, space = left_running(path)
    storage = open_storage(sqlite_url(path))
    with Workers(storage, archive.study_name) as workers:
        assert recover(archive, storage, space, colleagues=workers) == 0
    storage.engine.dispose()


def test_a_draw_that_was_queued_again_is_not_queued_twice(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    archive, space = left_running(path)
    params = archive.get_trials()[0].params
    archive.enqueue_trial(params, user_attrs={"retry_of": 0, "attempt": 2})
    storage = open_storage(sqlite_url(path))
    recover(archive, storage, space, colleagues=Alone())
    assert states(archive) == [TrialState.FAIL, TrialState.WAITING]
    storage.engine.dispose()


def test_a_trial_that_kills_its_process_every_time_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    archive, space = left_running(path, attempt=ATTEMPTS)
    storage = open_storage(sqlite_url(path))
    recover(archive, storage, space, colleagues=Alone())
    assert states(archive) == [TrialState.FAIL]
    assert archive.get_trials()[0].user_attrs["failure"] == "given up"
    storage.engine.dispose()


def test_a_half_drawn_trial_is_only_failed(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    archive, space = left_running(path)
    archive.tell(0, state=TrialState.FAIL)
    archive.ask()
    storage = open_storage(sqlite_url(path))
    recover(archive, storage, space, colleagues=Alone())
    assert states(archive) == [TrialState.FAIL, TrialState.FAIL]
    storage.engine.dispose()


def test_nothing_is_built_to_train_with_when_nothing_is_left_to_train(finished: Path) -> None:
    def build() -> Formula:
        raise AssertionError

    again = carry_out(
        tiny_study(), out=finished, storage=None, observer=Silent(), resolve=resolver(build)
    )
    assert len(again.complete) == 6
