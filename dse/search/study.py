"""Runs a study, or resumes it: baselines, search, finalists, records."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import optuna
from optuna.storages import BaseStorage

from dse.candidate import Candidate
from dse.config import Study, budget_bytes, describe_budgets, with_budgets, with_flags
from dse.errors import RunError
from dse.networks.cores import threads_chosen
from dse.results.balance import ClassImages, imbalance_warning
from dse.results.records import RunRecords
from dse.sampling.front_sampler import unsteered
from dse.search.archive import (
    CLASSES,
    CONVENTION,
    FRAME,
    WORTHLESS,
    open_archive,
    store_frame,
)
from dse.search.baselines import score_baselines
from dse.search.crew import Crew, Relaying, Work
from dse.search.data_files import unreadable_noted, write_files
from dse.search.earlier_runs import check_earlier, earlier_rows, store_earlier
from dse.search.finish import finish
from dse.search.gate import Gate, hopeless
from dse.search.handing_out import Job, hand_out
from dse.search.joining import Joining
from dse.search.kept import Kept
from dse.search.load import load_run, read_records
from dse.search.loop import sample
from dse.search.origin import FINGERPRINT, confirm_fingerprint
from dse.search.patience import STORAGE_ERRORS, Patience, cause
from dse.search.progress import Meter, Observer, Silent
from dse.search.resolve import Resolve, Resolved, resolve
from dse.search.resume import recover
from dse.search.run_file import RunFile
from dse.search.run_folder import WORKERS_FOLDER, RunFolder
from dse.search.seeding import seed_trials
from dse.search.session import Session, tuned_session
from dse.search.session_log import SessionLog
from dse.search.signals import Attentive, stoppable
from dse.search.storage import close_storage, open_storage
from dse.search.storage_urls import masked
from dse.search.trainer import Evaluator
from dse.search.turns import count_ended
from dse.search.workers import Alone, Colleagues, claimed
from dse.tasks.task import Task
from dse.trust.seal import state_folder

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
                archive = _carry_out(
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
        stored = lambda: FINGERPRINT in archive.user_attrs  # noqa: E731
        hand_out([Job(key=FINGERPRINT, is_done=stored, run=confirm)], colleagues)
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


def _carry_out(
    written: Study,
    *,
    folder: RunFolder,
    file: RunFile,
    storage: BaseStorage,
    observer: Observer,
    resolve: Resolve,
    started: float,
    log: SessionLog,
    colleagues: Colleagues,
    begin: Callable[..., None],
    earlier: Sequence[RunRecords],
) -> optuna.Study:
    parts = resolve(written, folder, file)
    for one in earlier:
        check_earlier(one, parts.space, sampler=written.search.sampler)
    unpruned = parts.costs.of(Candidate())
    budgets = file.budgets or budget_bytes(
        written.search.budgets, unpruned_peak_bytes=unpruned["peak_bytes"]
    )
    study = with_budgets(written, budgets)
    gate = Gate(max(study.search.budget_bytes), active=study.search.gate)
    smallest_peak_bytes = gate.check_possible(parts.space, parts.costs)
    folder.confirm(file, parts.fingerprint, excused=parts.excused)
    _announce(study, written, parts, observer, smallest_peak_bytes=smallest_peak_bytes)
    file = _write(folder, file, written, parts, budgets=budgets, observer=observer)
    archive = open_archive(study, file, storage)
    kept = Kept(folder.path)
    if count := kept.store(archive):
        observer.on_message(f"stores {count} results that an earlier session couldn't store")
    log.begin(archive, study)
    reference = {"accuracy": parts.task.chance, **unpruned}
    frame = {
        "groups": [[choice.name, choice.channels] for choice in parts.space.choices],
        "reference": reference,
        "unpruned_peak_bytes": unpruned["peak_bytes"],
        "smallest_peak_bytes": smallest_peak_bytes,
        CLASSES: parts.classes,
        **({WORTHLESS: parts.task.measure.worthless} if parts.task.measure.is_error else {}),
        CONVENTION: "tensors" if parts.memory_note is None else "allocator",
    }
    if FRAME not in archive.user_attrs:  # so that a run that is being tuned can be read
        store_frame(archive, frame, parts.space)
    begin(storage=storage, archive=archive, colleagues=colleagues, parts=parts, observer=observer)
    session = tuned_session(
        study,
        parts,
        identity=file.identity,
        archive=archive,
        gate=gate,
        observer=observer,
        meter=_meter(study, parts.task, reference=reference, started=started),
        storage=storage,
        colleagues=colleagues,
        keep=kept.keep,
    )
    store_frame(archive, frame, session.space)
    _resume(session)
    baselines = score_baselines(session)
    seed_trials(session, baselines)
    timeout = study.search.timeout
    sample(session, deadline=None if timeout is None else started + timeout)
    finish(session, baselines)
    return archive


def _write(
    folder: RunFolder,
    file: RunFile,
    written: Study,
    parts: Resolved[Evaluator],
    *,
    budgets: tuple[int, ...],
    observer: Observer,
) -> RunFile:
    """Write the files of the run folder, and return the content of `run.json`."""
    file = file.completed(
        parts.fingerprint, model_key=parts.model_key, budgets=budgets, data=parts.data
    ).sealed(written)
    if file.seal is None:
        observer.on_message(
            f"{state_folder()} can't be written, so later commands won't recognise this run as "
            "their own and will require --trust"
        )
    folder.write(file, written)
    write_files(folder.path, parts.files)
    return file


def _meter(study: Study, task: Task, *, reference: Mapping[str, float], started: float) -> Meter:
    proxy, search = study.proxy, study.search
    rivals_in_full = len(search.budgets) if search.full_baselines else 0  # at most
    return Meter(
        objectives=search.objectives,
        reference=reference,
        full_to_short=proxy.full_epochs / proxy.short_epochs,
        trials=search.trials,
        full_evaluations=proxy.full_seeds * (1 + search.finalists + rivals_in_full),
        started=started,
        budgets=search.budget_bytes,
        measure=task.measure,
    )


def _announce(
    study: Study,
    written: Study,
    parts: Resolved[Evaluator],
    observer: Observer,
    *,
    smallest_peak_bytes: int,
) -> None:
    """Send messages: what the device holds beyond tensors, budgets in bytes, any warnings."""
    budgets = study.search.budget_bytes
    if parts.memory_note is not None:
        observer.on_message(parts.memory_note)
    if study != written:  # budgets were given as shares of the peak
        observer.on_message(f"budgets: {describe_budgets(written.search.budgets, budgets)}")
    images = ClassImages.of_summary(parts.data)
    warnings = (
        *parts.notes,
        imbalance_warning(images, metric=study.metric),
        hopeless(budgets, smallest_peak_bytes),
        unsteered(study.search),
    )
    for warning in warnings:
        if warning is not None:
            observer.on_message(warning)


def _resume(session: Session) -> None:
    """Queue the trials of a stopped run again, and count those that ended."""
    again = recover(session.archive, session.storage, session.space, colleagues=session.colleagues)
    if again:
        session.observer.on_message(
            f"continues {again} trial{'s' * (again > 1)} that a stopped run left"
        )
    count_ended(session, session.archive.get_trials(deepcopy=False))
