"""A script: one worker of the tiny study, whose trainings sleep; several share a storage.

Usage: worker.py FOLDER STORAGE TRIALS SECONDS PATIENCE; writes a line to FOLDER's parent's
`log.txt` when a training begins and when it ends, and prints "done" or the error at the end.
"""

import datetime as dt
import os
import sys
import time
from pathlib import Path

from dse.candidate import Candidate
from dse.errors import DseError
from dse.finetune.evaluation import Evaluation
from dse.search import study as run
from dse.search.joining import Joining
from dse.search.progress import Silent
from dse.search.workers import Pace
from support.searches import TRAINED, Formula, resolver, tiny_study

PACE = Pace(beat_seconds=0.2, grace_seconds=2.0, poll_seconds=0.05)
LOG = "log.txt"
SHIFTED = "TEST_CLOCK_SECONDS"  # by which the time of day is ahead
FAILING = "TEST_FAILING"  # number of trainings after which all others fail


class Sleeping(Formula):
    """Sleeps in place of training, and writes down when."""

    def __init__(self, folder: Path, seconds: float) -> None:
        super().__init__(folder / TRAINED)
        self.folder = folder
        self.seconds = seconds

    def evaluate(self, candidate: Candidate, **settings: object) -> Evaluation:
        key = f"{candidate.digest}:{settings['fidelity']}:{settings.get('seed_index', 0)}"
        self.write("begins", key)
        time.sleep(self.seconds)
        if FAILING in os.environ and len(self.lines()) >= int(os.environ[FAILING]):
            raise ValueError("no such image")
        found = super().evaluate(candidate, **settings)  # type: ignore[arg-type]
        self.write("ends", key)
        return found

    def lines(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []

    def write(self, event: str, key: str) -> None:
        line = f"{time.time():.3f} {os.getpid()} {event} {key}\n"
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(line)


class Noting(Silent):
    """Prints messages."""

    def on_message(self, text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def shift_clocks(seconds: float) -> None:
    """Let this process read another time of day; libfaketime breaks `time.sleep` since 3.11."""
    real = time.time

    class Shifted(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> "Shifted":
            return cls.fromtimestamp(time.time(), tz)

    time.time = lambda: real() + seconds
    for module in list(sys.modules.values()):
        if getattr(module, "datetime", None) is dt.datetime:
            module.datetime = Shifted  # type: ignore[attr-defined]


def main(folder: Path, storage: str, trials: int, seconds: float, patience: float) -> int:
    run.PATIENCE_SECONDS = patience
    evaluator = Sleeping(folder.parent, seconds)
    try:
        records = run.carry_out(
            tiny_study(trials=trials, finalists=1),
            out=folder,
            storage=None if storage == "own" else storage,
            observer=Noting(),
            resolve=resolver(lambda: evaluator),
            joining=Joining(pace=PACE),
        )
    except KeyboardInterrupt:
        sys.stdout.write("interrupted\n")
        return 130
    except DseError as error:
        sys.stdout.write(f"error: {error}\n")
        return 2
    count = len([one for one in records.complete if one.baseline is None])
    sys.stdout.write(f"done {count} {len(records.finals)}\n")
    return 0


if __name__ == "__main__":
    shift_clocks(float(os.environ.get(SHIFTED, "0")))
    out, url, *numbers = sys.argv[1:]
    sys.exit(main(Path(out), url, int(numbers[0]), float(numbers[1]), float(numbers[2])))
