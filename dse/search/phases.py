"""The phases of a run, from its budgets to its finalists, in a storage that is open."""

from collections.abc import Callable, Mapping, Sequence

import optuna
from optuna.storages import BaseStorage

from dse.candidate import Candidate
from dse.config import Study, budget_bytes, describe_budgets, with_budgets
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
from dse.search.data_files import write_files
from dse.search.earlier_runs import check_earlier
from dse.search.finish import finish
from dse.search.gate import Gate, hopeless
from dse.search.kept import Kept
from dse.search.loop import sample
from dse.search.progress import Meter, Observer
from dse.search.resolve import Resolve, Resolved
from dse.search.resume import recover
from dse.search.run_file import RunFile
from dse.search.run_folder import RunFolder
from dse.search.seeding import seed_trials
from dse.search.session import Session, tuned_session
from dse.search.session_log import SessionLog
from dse.search.trainer import Evaluator
from dse.search.turns import count_ended
from dse.search.workers import Colleagues
from dse.tasks.task import Task
from dse.trust.seal import state_folder


def run_phases(
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
    """Prepare a run, then tune the unpruned network, score baselines, search and train finalists.

    Args:
        written: the study as its file has it, with budgets that may be shares of the peak.
        folder: the run folder, which this process has locked.
        file: the content of its `run.json`.
        storage: the storage of the trials.
        observer: receives the run's events.
        resolve: makes the study's parts.
        started: when the run began, by `time.monotonic`.
        log: notes this session in the storage.
        colleagues: the other workers of the run.
        begin: called before anything is trained, when network and data are known.
        earlier: runs that the sampler learns from.

    Returns:
        Optuna's study with all results.

    Raises:
        DseError: see `dse.search.study.run`.
    """
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
