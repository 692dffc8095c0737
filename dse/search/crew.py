"""The further worker processes that one command starts on its machine."""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch

from dse.config import Study
from dse.errors import DseError
from dse.networks.devices import threads_set
from dse.results.records import TrialRecord
from dse.search.joining import Joining
from dse.search.progress import Observer, Phase, Progress, Silent
from dse.search.session_log import cores

Work = Callable[[Study, Path, str, Joining, Observer], object]
"""Runs a study as a worker: its study, run folder, storage URL, way to join and observer."""

_LEAVE_SECONDS = 20.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def threads_each(workers: int) -> int:
    """Return the threads that each of several workers may use, so that together they fit."""
    return max(1, cores() // workers)


@contextmanager
def sharing_cores(study: Study, workers: int) -> Iterator[None]:
    """Let this process use its share of the cores while several workers run.

    A study that sets `training.threads` keeps to that.
    """
    with threads_set(threads_each(workers) if workers > 1 and not study.training.threads else 0):
        yield


class Crew:
    """Worker processes that are started, watched and stopped by the command's own process."""

    def __init__(self, study: Study, *, folder: Path, joining: Joining, work: Work) -> None:
        """Prepare.

        Args:
            study: the study.
            folder: folder that receives a run folder for each worker.
            joining: how the command's own process joins; its `workers` counts that process.
            work: what each worker does; must be importable, because processes are spawned.
        """
        self._study = study
        self._folder = folder
        self._joining = joining
        self._work = work
        self._spawn = multiprocessing.get_context("spawn")
        self._words: Any = None
        self._processes: list[SpawnProcess] = []

    def start(self, url: str, study_name: str) -> None:
        """Start the workers.

        Args:
            url: URL of the storage, with its password.
            study_name: name of the Optuna study in it.
        """
        joining = replace(self._joining, workers=1, study_name=study_name)
        if self._joining.workers > 1:
            self._words = self._spawn.Queue()
        for number in range(2, self._joining.workers + 1):
            given = _Given(
                number=number,
                study=self._study,
                folder=self._folder / str(number),
                url=url,
                joining=joining,
                work=self._work,
                threads=threads_each(self._joining.workers),
            )
            process = self._spawn.Process(target=_run, args=(given, self._words))
            with _environment(_variables(self._study, number, given.threads)):
                process.start()
            self._processes.append(process)

    def words(self) -> Iterator[str]:
        """Yield what the workers have reported since the last call, one line each."""
        while self._words is not None:
            try:
                yield self._words.get_nowait()
            except queue.Empty:
                return

    def finish(self) -> None:
        """Wait for the workers, who end when the study's work is done."""
        for process in self._processes:
            process.join()

    def stop(self) -> None:
        """Let the workers save themselves and end; kill those that don't."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(timeout=_LEAVE_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()


@dataclass(frozen=True, kw_only=True)
class _Given:
    """What a worker process is started with."""

    number: int
    study: Study
    folder: Path
    url: str
    joining: Joining
    work: Work
    threads: int


def _run(given: _Given, words: Any) -> None:
    """Work on the study; the target of a worker process."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if not given.study.training.threads:
        torch.set_num_threads(given.threads)
    try:
        observer = _Reporting(given.number, words)
        given.work(given.study, given.folder, given.url, given.joining, observer)
    except KeyboardInterrupt:
        return
    except DseError as error:
        words.put(f"worker {given.number} ended: {error}")
    except Exception as error:  # noqa: BLE001  # the others go on
        words.put(f"worker {given.number} ended: unexpected {type(error).__name__}: {error}")


def _leave_with_parent() -> None:
    """Stop this process as a signal would, once the command that started it is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


class _Reporting(Silent):
    """Reports the failed trials of a worker to the command's own process."""

    def __init__(self, number: int, words: Any) -> None:
        self._number = number
        self._words = words

    def on_trial(self, record: TrialRecord, progress: Progress) -> None:  # noqa: ARG002
        """Report a failure."""
        if record.failure is not None:
            self._words.put(
                f"worker {self._number}: trial {record.number} failed: {record.failure}"
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


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that are started in the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
