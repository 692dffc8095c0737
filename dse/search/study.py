"""Runs a study, or resumes it: its folder, storage and workers; `phases` has what they do."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import optuna
from optuna.storages import BaseStorage

from dse.candidate import Candidate
from dse.config import Study, with_flags
from dse.errors import RunError
from dse.networks.cores import threads_chosen
from dse.results.records import RunRecords
from dse.search.crew import Crew, Relaying, Work
from dse.search.data_files import unreadable_noted
from dse.search.earlier_runs import earlier_rows, store_earlier
from dse.search.handing_out import Job, hand_out
from dse.search.joining import Joining
from dse.search.load import load_run, read_records
from dse.search.origin import FINGERPRINT, confirm_fingerprint
from dse.search.patience import STORAGE_ERRORS, Patience, cause
from dse.search.phases import run_phases
from dse.search.progress import Observer, Silent
from dse.search.resolve import Resolve, Resolved, resolve
from dse.search.resume import recover
from dse.search.run_file import RunFile
from dse.search.run_folder import WORKERS_FOLDER, RunFolder
from dse.search.session_log import SessionLog
from dse.search.signals import Attentive, stoppable
from dse.search.storage import close_storage, open_storage
from dse.search.storage_urls import masked
from dse.search.trainer import Evaluator
from dse.search.workers import Alone, Colleagues, claimed

PATIENCE_SECONDS = 600.0
"""How long a run waits for a storage that doesn't respond."""


def run(
    study: Study,
    *,
    out: Path,
    storage: str | None = None,
    trials: int | None = None,
    timeout: float | None = None,
    seed: int | None = None,
    observer: Observer | None = None,
    workers: int = 1,
    allow_mismatch: bool = False,
    fork: bool = False,
    warm_start: Sequence[Path] = (),
) -> RunRecords:
    """Run a study, or resume it where it stopped; nothing is trained twice.

    Any number of processes on any machines may run one study at the same time, each with a run
    folder of its own and the same `storage`. They share its trainings.

    Args:
        study: the study, as loaded from its file.
        out: the run folder; created if it doesn't exist.
        storage: an Optuna storage URL. None means the storage that the run used before, or the
            folder's own SQLite file.
        trials: total number of candidates to train; overrides the study's.
        timeout: seconds after which no new trial begins; overrides the study's. The tuning of the
            unpruned network, baselines and finalists are always finished.
        seed: overrides the study's seed.
        observer: receives the run's events.
        workers: number of processes to run on this machine, this one included.
        allow_mismatch: join a study in the storage that began with other settings, another network
            or other data; recorded in the storage.
        fork: begin a study of its own if the storage or the folder holds one with other settings;
            in the latter case beside the folder.
        warm_start: folders of earlier runs of the same network, on these data or others, that the
            default sampler learns from.

    Returns:
        Everything the run has found.

    Raises:
        ConfigError: if `trials`, `timeout` or `seed` is out of range, in which case nothing is
            written, or an earlier run is of another network.
        InfeasibleError: if no network of the search space fits the largest budget.
        RunError: if the folder or storage can't be used, or was used with other settings.
        DseError: if anything else is wrong with the study, its network or its data.
        KeyboardInterrupt: on Ctrl-C, SIGTERM or SIGHUP, after everything was saved.
    """
    observer = observer or Silent()
    resolved = with_flags(study, trials=trials, timeout=timeout, seed=seed)
    earlier = [load_run(folder) for folder in warm_start]
    if fork:
        out = RunFolder(out).forked(resolved, on_message=observer.on_message)
    return carry_out(
        resolved,
        out=out,
        storage=storage,
        observer=observer,
        resolve=partial(resolve, on_message=observer.on_message),
        joining=Joining(workers=workers, allow_mismatch=allow_mismatch, fork=fork),
        earlier=earlier,
    )


def _work(study: Study, out: Path, storage: str, joining: Joining, observer: Observer) -> None:
    """Run a study as one of the further workers of a command."""
    resolved = partial(resolve, on_message=observer.on_message)
    carry_out(study, out=out, storage=storage, observer=observer, resolve=resolved, joining=joining)


def carry_out(
    study: Study,
    *,
    out: Path,
    storage: str | None,
    observer: Observer,
    resolve: Resolve,
    joining: Joining | None = None,
    work: Work = _work,
    earlier: Sequence[RunRecords] = (),
) -> RunRecords:
    """Run a study as `run` does, with its parts made by `resolve`.

    `work` is what further workers do, if `joining` asks for some. `earlier` are the runs that it
    learns from.
    """
    started = time.monotonic()
    joining = joining or Joining()
    folder = RunFolder(out)
    folder.create()
    with (
        stoppable() as stop,
        folder.locked() as lock,
        unreadable_noted(out),
    ):
        begun = folder.is_run
        file = folder.describe(study, storage=storage)
        if begun:
            folder.check_database(file, given=storage)
        url = folder.storage_url(file, given=storage)
        patience = Patience(
            PATIENCE_SECONDS,
            on_wait=observer.on_message,
            is_stopping=lambda: stop.requested_at is not None,
        )
        opened = open_storage(url, patience=patience)
        crew = Crew(study, folder=out / WORKERS_FOLDER, joining=joining, work=work)
        try:
            file = joining.named(file, study, opened, begun=begun, observer=observer)
            with (
                joining.colleagues(opened, file, folder, study) as colleagues,
                threads_chosen(
                    study.training.threads or joining.threads or 0,
                    device=study.training.device,
                    workers=joining.workers,
                    others=colleagues.beside(),
                    on_message=observer.on_message,
                ) as threads,
                SessionLog() as log,
            ):
                archive = run_phases(
                    study,
                    folder=folder,
                    file=file,
                    storage=opened,
                    observer=Attentive(Relaying(observer, crew), stop, lock.check),
                    resolve=resolve,
                    started=started,
                    log=log,
                    colleagues=colleagues,
                    earlier=earlier,
                    begin=partial(
                        _begin,
                        joining=joining,
                        crew=crew,
                        url=url,
                        file=file,
                        threads=threads,
                        earlier=earlier,
                    ),
                )
                crew.finish()
            Relaying(observer, crew).relay()
            return read_records(folder, archive, trusted=True)
        except STORAGE_ERRORS as error:
            raise RunError(
                f"storage {masked(url)} stopped answering: {cause(error)}; run the study again "
                "to go on (finished trainings are kept)"
            ) from error
        finally:
            crew.stop()
            close_storage(opened)


def _begin(
    *,
    joining: Joining,
    crew: Crew,
    url: str,
    file: RunFile,
    threads: int,
    earlier: Sequence[RunRecords],
    storage: BaseStorage,
    archive: optuna.Study,
    colleagues: Colleagues,
    parts: Resolved[Evaluator],
    observer: Observer,
) -> None:
    """Agree with the other workers on network and data, and start further ones."""
    if joining.is_shared(file):
        confirm = partial(
            confirm_fingerprint,
            archive,
            parts.fingerprint,
            allow_mismatch=joining.allow_mismatch,
            on_message=observer.on_message,
        )
        job = Job(key=FINGERPRINT, is_done=lambda: FINGERPRINT in archive.user_attrs, run=confirm)
        hand_out([job], colleagues)
    if earlier:
        unpruned_peak_bytes = parts.costs.peak_bytes(Candidate())
        with claimed(colleagues, "earlier runs"):
            store_earlier(archive, earlier, unpruned_peak_bytes=unpruned_peak_bytes)
        for name, rows in earlier_rows(archive.user_attrs).items():
            observer.on_message(f"learns from {len(rows)} candidates of the earlier run {name}")
    if not joining.is_shared(file):
        return
    if file.storage is None:  # the folder is locked, so what runs there was left by dead workers
        recover(archive, storage, parts.space, colleagues=Alone())
    crew.start(url, file.study_name, threads=threads)
