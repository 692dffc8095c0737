"""The worker processes that one command starts."""

import time
from pathlib import Path

import pytest

from dse.config import Study
from dse.search.joining import Joining
from dse.search.progress import Observer, Silent
from dse.search.run_folder import WORKERS_FOLDER, RunFolder
from dse.search.study import carry_out
from dse.search.workers import Pace
from support.searches import Formula, resolver, tiny_study

pytestmark = pytest.mark.slow  # each starts a process that imports torch

TESTS = Path(__file__).parents[1]
PACE = Pace(beat_seconds=0.2, grace_seconds=20.0, poll_seconds=0.02)
TRIALS = 12


class Noting(Silent):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def on_message(self, text: str) -> None:
        self.messages.append(text)


def work(study: Study, out: Path, storage: str, joining: Joining, observer: Observer) -> None:
    """What the second process runs; it slows down so that both train."""
    evaluator = Formula(out / "trained.txt", before=lambda _count: time.sleep(0.05))
    parts = resolver(lambda: evaluator)
    carry_out(study, out=out, storage=storage, observer=observer, resolve=parts, joining=joining)


def break_down(
    study: Study,
    out: Path,  # noqa: ARG001
    storage: str,  # noqa: ARG001
    joining: Joining,
    observer: Observer,  # noqa: ARG001
) -> None:
    """What a second process runs that fails at once."""
    raise ValueError(f"{study.name} by {joining.study_name}")


def test_a_second_process_trains_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    out = tmp_path / "run"
    second = out / WORKERS_FOLDER / "2" / "trained.txt"

    def wait(count: int) -> None:
        """Train no second trial before the other process has trained one."""
        end = time.monotonic() + 60
        while count == 4 and not second.exists() and time.monotonic() < end:  # after two baselines
            time.sleep(0.02)
        time.sleep(0.05)

    evaluator = Formula(tmp_path / "trained.txt", before=wait)
    observer = Noting()
    records = carry_out(
        tiny_study(trials=TRIALS),
        out=out,
        storage=None,
        observer=observer,
        resolve=resolver(lambda: evaluator),
        joining=Joining(workers=2, pace=PACE),
        work=work,
    )
    first, other = (
        path.read_text(encoding="utf-8").split() for path in (tmp_path / "trained.txt", second)
    )
    assert len(set(first) | set(other)) == len(first) + len(other)  # nothing was trained twice
    assert any(":short:" in one for one in other)
    assert len([one for one in records.complete if one.baseline is None]) == TRIALS
    assert len(records.sessions) == 2
    assert not [one for one in observer.messages if "ended" in one], observer.messages


def test_a_worker_process_that_fails_is_reported_and_the_study_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    evaluator, observer = Formula(tmp_path / "trained.txt"), Noting()
    study = tiny_study(trials=2)
    records = carry_out(
        study,
        out=tmp_path / "run",
        storage=None,
        observer=observer,
        resolve=resolver(lambda: evaluator),
        joining=Joining(workers=2, pace=PACE),
        work=break_down,
    )
    assert len([one for one in records.complete if one.baseline is None]) == 2
    name = RunFolder(tmp_path / "run").read().study_name
    assert f"worker 2 ended: unexpected ValueError: tiny by {name}" in observer.messages
