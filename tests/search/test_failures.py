"""Trainings that break off: the run goes on without them."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dse.errors import RunError, TrainingError
from dse.search.failures import training_failure
from dse.search.load import load_run
from dse.search.loop import FAILURES_IN_A_ROW
from support.searches import Recorder, search, tiny_study, trained

OUT_OF_MEMORY = "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"


def failing(error: BaseException, *counts: int, from_on: int = 10**9) -> Callable[[int], None]:
    """Raise in chosen trainings, or in all from one on; the first are the two baselines."""

    def before(count: int) -> None:
        if count in counts or count >= from_on:
            raise error

    return before


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "out of memory: one training step was predicted to hold"),
        (RuntimeError(OUT_OF_MEMORY), "out of memory: one training step was predicted to hold"),
        (torch.OutOfMemoryError("CUDA out of memory."), "out of memory: one training step"),
        (ValueError("bad\nimage 7"), "ValueError: bad image 7"),
        (AssertionError(), "AssertionError"),
        (SystemExit(3), "tried to end the process (3)"),
    ],
)
def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(
    tmp_path: Path, error: BaseException, reason: str
) -> None:
    out, study, observer = tmp_path / "run", tiny_study(trials=3, finalists=1), Recorder()
    search(out, study, before=failing(error, 4), observer=observer)
    records = load_run(out)
    (failed,) = [trial for trial in records.trials if trial.state == "failed"]
    assert reason in str(failed.failure)
    assert "\n" not in str(failed.failure)
    # It counts as one of the three, and is not drawn again.
    assert len([t for t in records.complete if t.baseline is None]) == 2
    assert [trial.failure for trial in observer.trials if trial.failure] == [failed.failure]
    before = trained(out)
    search(out, study)
    assert trained(out) == before


def test_ten_failures_in_a_row_end_the_run_with_the_reason(tmp_path: Path) -> None:
    out, study = tmp_path / "run", tiny_study(trials=40)
    before = failing(ValueError("no such file"), from_on=4)
    with pytest.raises(TrainingError, match=r"^10 candidates in a row .*ValueError: no such file$"):
        search(out, study, before=before)
    records = load_run(out)
    assert records.trials_by_state["failed"] == FAILURES_IN_A_ROW
    assert len([t for t in records.complete if t.baseline is None]) == 1  # nothing was lost


def test_a_success_in_between_counts_anew(tmp_path: Path) -> None:
    study = tiny_study(trials=14, finalists=1)
    failures = set(range(3, 17)) - {8, 13}
    search(tmp_path / "run", study, before=failing(ValueError("flaky"), *failures))
    assert load_run(tmp_path / "run").trials_by_state["failed"] == 12


def test_a_baseline_that_fails_is_left_out_and_tried_again_later(tmp_path: Path) -> None:
    out, study, observer = tmp_path / "run", tiny_study(trials=1, finalists=1), Recorder()
    search(out, study, before=failing(MemoryError(), 2), observer=observer)
    records = load_run(out)
    assert [one.kind for one in records.baselines] == ["unpruned"]
    (failure,) = records.failures
    assert (failure.what, failure.label) == ("baseline", "uniform 0.50")
    assert failure.reason.startswith("out of memory")
    assert any("uniform 0.50 failed" in message for message in observer.messages)
    again = search(out, study)
    assert [one.label for one in again.baselines] == ["unpruned", "uniform 0.50"]
    assert again.failures == ()


def test_a_finalist_that_fails_is_left_out(tmp_path: Path) -> None:
    out, study = tmp_path / "run", tiny_study(trials=2, finalists=1)
    # Two baselines, two trials, two seeds of the unpruned network, then the finalist.
    records = search(out, study, before=failing(ValueError("broken"), 7))
    assert [one.label for one in records.finals] == ["unpruned"]
    (failure,) = records.failures
    assert (failure.what, failure.reason) == ("finalist", "ValueError: broken")


def test_without_the_unpruned_network_nothing_can_be_compared(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"^baseline unpruned: ValueError: broken$"):
        search(tmp_path / "run", before=failing(ValueError("broken"), 1))


def test_what_all_trainings_need_ends_the_run_and_loses_no_trial(tmp_path: Path) -> None:
    out, study = tmp_path / "run", tiny_study(trials=2, finalists=1)
    with pytest.raises(RunError, match="can't be kept"):
        search(out, study, before=failing(RunError("weights can't be kept"), 3))
    assert all(trial.failure is None for trial in load_run(out).trials)
    assert len([t for t in search(out, study).complete if t.baseline is None]) == 2


def test_a_failure_for_want_of_memory_holds_on_to_nothing() -> None:
    def train() -> None:
        tensor = torch.zeros(3)
        alive.append(weakref.ref(tensor))
        raise MemoryError

    alive: list[weakref.ref[torch.Tensor]] = []
    failure = None
    try:
        train()
    except MemoryError as error:
        failure = training_failure(error, predicted_bytes=2**20)
    gc.collect()
    assert "1.0 MiB" in str(failure)
    assert alive[0]() is None
