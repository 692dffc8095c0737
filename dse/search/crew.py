"""The further worker processes that one command starts on its machine."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TextIO

import torch
from pydantic import TypeAdapter

from dse.config import Study
from dse.errors import DseError
from dse.results.candidate_records import TrialRecord
from dse.search.joining import Joining
from dse.search.progress import Observer, Phase, Progress, Silent

Work = Callable[[Study, Path, str, Joining, Observer], object]
"""Runs a study as a worker: its study, run folder, storage URL, way to join and observer."""

_LEAVE_SECONDS = 20.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Crew:
    """Worker processes that are started, watched and stopped by the command's own process."""

    def __init__(self, study: Study, *, folder: Path, joining: Joining, work: Work) -> None:
        """Prepare.

        Args:
            study: the study.
            folder: folder that receives a run folder for each worker.
            joining: how the command's own process joins; its `workers` counts that process.
            work: what each worker does; a function that can be imported by its name.
        """
        self._study = study
        self._folder = folder
        self._joining = joining
        self._work = work
        self._words: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, url: str, study_name: str, *, threads: int) -> None:
        """Start the workers.

        Args:
            url: URL of the storage, with its password.
            study_name: name of the Optuna study in it.
            threads: CPU threads of each worker, if the study doesn't set them.
        """
        joining = replace(self._joining, workers=1, study_name=study_name, threads=threads)
        for number in range(2, self._joining.workers + 1):
            given = _Given(
                number=number,
                study=self._study.model_dump(mode="json"),
                folder=self._folder / str(number),
                url=url,
                joining=joining,
                work=f"{self._work.__module__}:{self._work.__qualname__}",
            )
            # A fresh interpreter, as threads don't survive a fork. Not by multiprocessing, which
            # would run the main module of the user's script once more.
            process = subprocess.Popen(
                [sys.executable, "-c", "from dse.search.crew import work; work()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **_variables(self._study, number, threads)},
            )
            self._processes.append(process)
            threading.Thread(target=self._listen, args=(process,), daemon=True).start()
            if process.stdin is not None:  # it stays open: its end tells the worker of ours
                with suppress(BrokenPipeError):  # it could not start, and is reported by `finish`
                    process.stdin.write(TypeAdapter(_Given).dump_json(given) + b"\n")
                    process.stdin.flush()

    def words(self) -> Iterator[str]:
        """Yield what the workers have reported since the last call, one line each."""
        while not self._words.empty():
            yield self._words.get()

    def finish(self) -> None:
        """Wait for the workers, who end when the study's work is done."""
        for number, process in enumerate(self._processes, 2):
            if process.wait():
                self._words.put(f"worker {number} ended with status {process.returncode}")

    def stop(self) -> None:
        """Let the workers save themselves and end; kill those that don't."""
        for process in self._processes:
            process.terminate()
        end = time.monotonic() + _LEAVE_SECONDS
        for process in self._processes:
            try:
                process.wait(timeout=max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                with suppress(OSError):
                    process.stdin.close()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdout is not None:
            with process.stdout as lines:
                for line in lines:
                    self._words.put(line.decode(errors="replace").strip())


@dataclass(frozen=True, kw_only=True)
class _Given:
    """What a worker process is started with: one line of JSON."""

    number: int
    study: dict[str, Any]
    folder: Path
    url: str
    joining: Joining
    work: str  # module:function


def work() -> None:
    """Work on a study; what a worker process runs. The command's process writes the rest to it."""
    with os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8") as words:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)  # what the code of a network prints is no report
        given = TypeAdapter(_Given).validate_json(sys.stdin.buffer.readline())
        threading.Thread(target=_leave_with_parent, daemon=True).start()
        try:
            study = Study.model_validate(given.study)
            observer = _Reporting(given.number, words)
            run: Work = resolve_name(given.work)
            run(study, given.folder, given.url, given.joining, observer)
        except KeyboardInterrupt:
            return
        except DseError as error:
            words.write(f"worker {given.number} ended: {error}\n")
        except Exception as error:  # noqa: BLE001  # the others go on
            text = " ".join(str(error).split())
            words.write(f"worker {given.number} ended: unexpected {type(error).__name__}: {text}\n")


def _leave_with_parent() -> None:
    """Stop this process as a signal would, once the command that started it is gone."""
    while os.read(0, 1):  # not through sys.stdin, whose lock would be held at the exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)


class _Reporting(Silent):
    """Reports the failed trials of a worker to the command's own process."""

    def __init__(self, number: int, words: TextIO) -> None:
        self._number = number
        self._words = words

    def on_trial(self, record: TrialRecord, progress: Progress) -> None:  # noqa: ARG002
        """Report a failure."""
        if record.failure is not None:
            self._words.write(
                f"worker {self._number}: trial {record.number} failed: {record.failure}\n"
            )


class Relaying:
    """An observer that also passes on what the workers of a crew have reported."""

    def __init__(self, observer: Observer, crew: Crew) -> None:
        """Wrap an observer."""
        self._observer = observer
        self._crew = crew

    def on_phase(self, name: Phase, total: int) -> None:
        """Forward."""
        self.relay()
        self._observer.on_phase(name, total)

    def on_trial(self, record: TrialRecord, progress: Progress) -> None:
        """Forward."""
        self.relay()
        self._observer.on_trial(record, progress)

    def on_evaluation(self, label: str, accuracy: float, progress: Progress) -> None:
        """Forward."""
        self.relay()
        self._observer.on_evaluation(label, accuracy, progress)

    def on_progress(self, share: float) -> None:
        """Forward."""
        self.relay()
        self._observer.on_progress(share)

    def on_message(self, text: str) -> None:
        """Forward."""
        self._observer.on_message(text)

    def relay(self) -> None:
        """Pass on what the workers have reported."""
        for word in self._crew.words():
            self._observer.on_message(word)


def _variables(study: Study, number: int, threads: int) -> dict[str, str]:
    """Return the environment of a worker: its threads, and its GPU if there are several."""
    found = {}
    if not study.training.threads:
        found = dict.fromkeys(_THREAD_VARIABLES, str(threads))
    if study.training.device == "cuda" and torch.cuda.device_count() > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))
        found["CUDA_VISIBLE_DEVICES"] = names[(number - 1) % len(names)]
    return found
