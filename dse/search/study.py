"""Runs a study, or resumes it: baselines, search, finalists, records."""

import time
import warnings
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection

from dse.candidate import Candidate
from dse.config import Study, budget_bytes, describe_budgets, with_budgets, with_flags
from dse.errors import RunError
from dse.methods.workbench import space_of
from dse.metrics import objective_title
from dse.results.balance import ClassImages, imbalance_warning
from dse.results.front import maximised
from dse.results.records import BaselineRecord, RunRecords
from dse.results.trials import trial_record
from dse.sampling.front_sampler import unsteered
from dse.sampling.search_space import SearchSpace
from dse.search.baselines import score_baselines
from dse.search.data_files import unreadable_noted, write_files
from dse.search.finals import choose_finalists, entrants, score_finals
from dse.search.gate import Gate, hopeless
from dse.search.ledger import Ledger
from dse.search.load import CLASSES, CONVENTION, FRAME, read_records
from dse.search.loop import sample
from dse.search.progress import Meter, Observer, Silent
from dse.search.reference import Tuner, scopes_of
from dse.search.resolve import Resolve, Resolved, resolve
from dse.search.resume import recover
from dse.search.run_file import RunFile
from dse.search.run_folder import RunFolder
from dse.search.seeding import seed_trials
from dse.search.session import Session
from dse.search.session_log import SessionLog
from dse.search.shape import Shape
from dse.search.signals import Attentive, stoppable
from dse.search.storage import STORAGE_ERRORS, cause, masked, open_storage
from dse.search.trainer import Evaluator, Trainer
from dse.trust.seal import state_folder


def run(
    study: Study,
    *,
    out: Path,
    storage: str | None = None,
    trials: int | None = None,
    timeout: float | None = None,
    seed: int | None = None,
    observer: Observer | None = None,
) -> RunRecords:
    """Run a study, or resume it where it stopped; nothing is trained twice.

    Args:
        study: the study, as loaded from its file.
        out: the run folder; created if it doesn't exist.
        storage: an Optuna storage URL. None means the storage that the run used before, or the
            folder's own SQLite file.
        trials: total number of candidates to train; overrides the study's.
        timeout: seconds after which no new trial begins; overrides the study's. Baselines and
            finalists are always finished.
        seed: overrides the study's seed.
        observer: receives the run's events.

    Returns:
        Everything the run has found.

    Raises:
        ConfigError: if `trials`, `timeout` or `seed` is out of range; nothing is written then.
        InfeasibleError: if no network of the search space fits the largest budget.
        RunError: if the folder or storage can't be used, or was used with other settings.
        DseError: if anything else is wrong with the study, its network or its data.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after everything was saved.
    """
    told = observer or Silent()
    return carry_out(
        with_flags(study, trials=trials, timeout=timeout, seed=seed),
        out=out,
        storage=storage,
        observer=told,
        resolve=partial(resolve, on_message=told.on_message),
    )


def carry_out(
    study: Study, *, out: Path, storage: str | None, observer: Observer, resolve: Resolve
) -> RunRecords:
    """Run a study as `run` does, with its parts made by `resolve`."""
    started = time.monotonic()
    folder = RunFolder(out)
    folder.create()
    with stoppable() as stop, folder.locked(), unreadable_noted(out):
        begun = folder.is_run
        file = folder.describe(study, storage=storage)
        if begun:
            folder.check_database(file, given=storage)
        url = folder.storage_url(file, given=storage)
        opened = open_storage(url)
        try:
            with SessionLog() as log:
                archive = _carry_out(
                    study,
                    folder=folder,
                    file=file,
                    storage=opened,
                    observer=Attentive(observer, stop),
                    resolve=resolve,
                    started=started,
                    log=log,
                )
            return read_records(folder, archive, trusted=True)
        except STORAGE_ERRORS as error:
            raise RunError(
                f"storage {masked(url)} stopped answering: {cause(error)}; run the study again "
                "to go on"
            ) from error
        finally:
            opened.remove_session()
            opened.engine.dispose()


def _carry_out(
    study: Study,
    *,
    folder: RunFolder,
    file: RunFile,
    storage: RDBStorage,
    observer: Observer,
    resolve: Resolve,
    started: float,
    log: SessionLog,
) -> optuna.Study:
    written, parts = study, resolve(study, folder, file)
    unpruned = parts.costs.of(Candidate(channels={}))
    unpruned_peak_bytes = parts.costs.peak_bytes(Candidate(channels={}))
    budgets = file.budgets or budget_bytes(
        study.search.budgets, unpruned_peak_bytes=unpruned_peak_bytes
    )
    study = with_budgets(study, budgets)
    gate = Gate(max(study.search.budget_bytes), active=study.search.gate)
    smallest_peak_bytes = gate.check_possible(parts.space, parts.costs)
    folder.confirm(file, parts.fingerprint, excused=parts.excused)
    if parts.memory_note is not None:
        observer.on_message(parts.memory_note)
    _announce(study, written, parts, observer, smallest_peak_bytes=smallest_peak_bytes)
    file = file.completed(
        parts.fingerprint, model_key=parts.model_key, budgets=budgets, data=parts.data
    )
    file = file.sealed(written)
    if file.seal is None:
        observer.on_message(
            f"{state_folder()} can't be written, so that later commands won't know this run as "
            "their own: they will ask for --trust"
        )
    folder.write(file, written)
    write_files(folder.path, parts.files)
    archive = _archive(study, file, storage)
    log.begin(archive, study)
    reference = {"accuracy": 1 / parts.classes, **unpruned}
    frame = {
        "groups": [[choice.name, choice.channels] for choice in parts.space.choices],
        "reference": reference,
        "unpruned_peak_bytes": unpruned_peak_bytes,
        "smallest_peak_bytes": smallest_peak_bytes,
        CLASSES: parts.classes,
        CONVENTION: "tensors" if parts.memory_note is None else "allocator",
    }
    _frame(archive, frame, parts.space)

    @cache
    def build() -> Evaluator:
        if parts.preparation is None:
            return parts.build_evaluator(observer.on_progress)
        observer.on_message(parts.preparation)
        observer.on_phase("pretraining", 1)
        evaluator = parts.build_evaluator(observer.on_progress)
        if meter.total:  # what goes on after it
            observer.on_phase(meter.phase, meter.total)
        return evaluator

    proxy, search = study.proxy, study.search
    meter = Meter(
        objectives=search.objectives,
        reference=reference,
        full_to_short=proxy.full_epochs / proxy.short_epochs,
        trials=search.trials,
        full_evaluations=proxy.full_seeds * (1 + search.finalists),
        started=started,
        budgets=search.budget_bytes,
    )
    tuner = Tuner(
        study=study,
        archive=archive,
        build=build,
        predict=parts.costs.peak_bytes,
        observer=observer,
        meter=meter,
    )
    tuning = tuner.tuned()
    study = tuning.with_recipe(study)
    meter.full_to_short = study.proxy.full_epochs / study.proxy.short_epochs
    space = _space_under(study, parts)
    _frame(archive, frame, space)
    session = Session(
        study=study,
        archive=archive,
        identity=file.identity,
        network=parts.network,
        space=space,
        costs=parts.costs,
        gate=gate,
        shape=Shape(space, parts.costs, search, study.seed),
        trainer=Trainer(
            Ledger(archive, unpruned_scopes=scopes_of(tuning, study)),
            build=lambda: build().under(study),
            predict=parts.costs.peak_bytes,
            on_progress=observer.on_progress,
        ),
        observer=observer,
        meter=meter,
    )
    again = recover(
        archive,
        storage,
        space,
        identity=file.identity,
        exclusive=file.storage is None,
    )
    if again:
        observer.on_message(f"takes up {again} trial{'s' * (again > 1)} that a stopped run left")
    _count_past_trials(session)
    baselines = score_baselines(session)
    seed_trials(session, baselines)
    timeout = search.timeout
    sample(session, deadline=None if timeout is None else started + timeout)
    _finish(session, baselines)
    return archive


def _announce(
    study: Study,
    written: Study,
    parts: Resolved[Evaluator],
    observer: Observer,
    *,
    smallest_peak_bytes: int,
) -> None:
    """Send messages with the budgets in bytes and any warnings."""
    budgets = study.search.budget_bytes
    if study != written:  # budgets were given as shares of the peak
        observer.on_message(f"budgets: {describe_budgets(written.search.budgets, budgets)}")
    images = ClassImages.of_summary(parts.data)
    warnings = (
        *parts.notes,
        imbalance_warning(images, metric=study.search.metric),
        hopeless(budgets, smallest_peak_bytes),
        unsteered(study.search),
    )
    for warning in warnings:
        if warning is not None:
            observer.on_message(warning)


def _frame(archive: optuna.Study, frame: Mapping[str, Any], space: SearchSpace) -> None:
    """Store what is known before the first trial, unless it is stored already."""
    joint = {one.name: list(one.values) for one in space.joint}
    if archive.user_attrs.get(FRAME) != {**frame, "joint": joint}:
        archive.set_user_attr(FRAME, {**frame, "joint": joint})


def _space_under(study: Study, parts: Resolved[Evaluator]) -> SearchSpace:
    """Return the space with the tuned learning rate in place of the study file's."""
    if study.space.joint is None or not study.space.joint.learning_rate:
        return parts.space
    return space_of(study, parts.network, parts.costs.training.groups)


def _archive(study: Study, file: RunFile, storage: RDBStorage) -> optuna.Study:
    """Create the Optuna study, or load it if it exists."""
    search = study.search
    archive = optuna.create_study(
        study_name=file.study_name,
        storage=storage,
        sampler=RandomSampler(seed=study.seed),  # replaced before every draw
        directions=[
            StudyDirection.MAXIMIZE if more_is_better else StudyDirection.MINIMIZE
            for more_is_better in maximised(search.objectives)
        ],
        load_if_exists=True,
    )
    names = [objective_title(one, metric=search.metric) for one in search.objectives]
    if archive.metric_names != names:  # a new study, or one of an older release
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            archive.set_metric_names(names)
    return archive


def _count_past_trials(session: Session) -> None:
    for trial in session.archive.get_trials(deepcopy=False):
        record = trial_record(trial, objectives=session.study.search.objectives)
        if record is not None:
            session.meter.count(record)


def _finish(session: Session, baselines: tuple[BaselineRecord, ...]) -> None:
    search = session.study.search
    records = [
        trial_record(trial, objectives=search.objectives)
        for trial in session.archive.get_trials(deepcopy=False)
    ]
    known = entrants(session, [one for one in records if one is not None], baselines)
    chosen = choose_finalists(
        known, objectives=search.objectives, budgets=search.budget_bytes, count=search.finalists
    )
    score_finals(session, chosen)
