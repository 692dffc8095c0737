"""Worker processes of one study, for tests that stop, freeze and kill them."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parents[1]
TRIALS = 8
DONE = f"done {TRIALS} 2"
"""What a worker prints at the end of a whole study."""

AS_FROM_A_TERMINAL = ("env", "--default-signal")
"""No signal is ignored, although the tests may run in the background or under nohup."""


@dataclass
class Team:
    """Worker processes of one study, and what they wrote down."""

    folder: Path
    url: str
    trials: int = TRIALS
    seconds: float = 0.3
    patience: float = 60.0
    workers: list[subprocess.Popen[str]] = field(default_factory=list)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, count: int = 1, *, through: Sequence[str] = (), **variables: str) -> None:
        """Start workers, each in the next free folder.

        Args:
            count: how many.
            through: a command that starts them, such as `sh -c`.
            variables: of their environment.
        """
        own = {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
        for _ in range(count):
            place = str(self.folder / f"run{len(self.workers)}")
            given = [place, self.url, str(self.trials), str(self.seconds), str(self.patience)]
            worker = [sys.executable, str(TESTS / "support" / "worker.py")]
            process = subprocess.Popen(
                [*AS_FROM_A_TERMINAL, *through, *worker, *given],
                env={**os.environ, **own, **variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self.started.append(process)
            self.workers.append(process)

    def again(self, *, done: str = DONE) -> None:
        """Run the study again in the first folder, to its end."""
        self.workers.clear()
        self.start()
        assert self.finish()[0].endswith(done)

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

    def end(self) -> None:
        """Kill what still runs."""
        for worker in self.started:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
            if worker.stdout is not None and not worker.stdout.closed:
                worker.communicate()

    def check_complete(self, *, repeated: int = 0, like: frozenset[str] = frozenset()) -> int:
        """No result was lost or repeated, except by what was interrupted; return how many were.

        Args:
            repeated: most trainings that may have begun twice.
            like: trainings of an undisturbed run, which must be the same; unknown if empty.
        """
        ended = Counter(key for _, _, key in self.events("ends"))
        begun = Counter(key for _, _, key in self.events("begins"))
        short = [key for key in ended if ":short:" in key]
        assert len(short) == TRIALS + 2  # and the baselines
        assert len(ended) == len(short) + 4  # two seeds of the unpruned network and of a finalist
        lost = sum(begun.values()) - len(ended)
        assert lost <= repeated, begun
        assert not like or ended.keys() == like
        return lost

    def recovery_seconds(self, since: float) -> float:
        return min(when for when, _, _ in self.events("ends") if when > since) - since


def until(reached: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)
