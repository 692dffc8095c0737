"""Reading a run folder, during the run or afterwards."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage

from dse.errors import RunError
from dse.results.candidate_records import BaselineRecord, FailureRecord, FinalRecord, RepeatRecord
from dse.results.records import RunRecords
from dse.results.trials import BASELINE, FAILED, died_early, trial_record
from dse.results.varied import varied_from_json
from dse.search.archive import CLASSES, CONVENTION, FRAME, JOINT, WORTHLESS
from dse.search.earlier_runs import earlier_rows
from dse.search.finals import FINAL
from dse.search.patience import DAMAGE, STORAGE_ERRORS, cause
from dse.search.reference import read_tuning
from dse.search.repeats import REPEAT
from dse.search.run_file import RunFile
from dse.search.run_folder import RunFolder
from dse.search.session_log import read_sessions
from dse.search.storage import close_storage, open_storage


def load_run(folder: Path, *, storage: str | None = None, trust: bool = False) -> RunRecords:
    """Read what a run has found so far, without locking or changing anything.

    Args:
        folder: a run folder written by `run`.
        storage: URL of the run's storage, if it needs a password (passwords are not stored).
        trust: use what the run refers to (another storage, and later the code of its network and
            data) although this machine did not make it.

    Raises:
        RunError: if the folder holds no run, its storage can't be read, or its storage lies outside
            the folder and is neither given nor trusted.
    """
    place = RunFolder(folder)
    file = place.read()
    trusted = trust or place.is_own(file)
    if storage is None:
        place.check_storage(file, trusted=trusted)
    with _archive(place, file, storage=storage) as archive:
        if archive is None:
            raise _not_begun(place)
        with _damage_reported(place):
            return read_records(place, archive, trusted=trusted)


@contextmanager
def _archive(
    place: RunFolder, file: RunFile, *, storage: str | None
) -> Iterator[optuna.Study | None]:
    """Open a run's Optuna study; yield None if the storage holds no such study."""
    place.check_database(file, given=storage)
    opened = open_storage(place.storage_url(file, given=storage), reading=True)
    try:
        yield _loaded(place, file, opened)
    finally:
        close_storage(opened)


def _loaded(place: RunFolder, file: RunFile, storage: BaseStorage) -> optuna.Study | None:
    with _damage_reported(place):
        try:
            return optuna.load_study(study_name=file.study_name, storage=storage)
        except KeyError:
            return None


@contextmanager
def _damage_reported(place: RunFolder) -> Iterator[None]:
    """Report whatever a storage of damaged content raises as one line.

    Optuna and SQLAlchemy convert what they read, and raise what a conversion raises.

    Raises:
        RunError: if the storage can't be read.
    """
    try:
        yield
    except STORAGE_ERRORS as error:
        raise RunError(f"the storage of {place.path} can't be read: {cause(error)}") from error
    except DAMAGE as error:
        text = " ".join(str(error).split())[:200]
        raise RunError(
            f"the storage of {place.path} is damaged ({type(error).__name__}: {text}): restore it"
        ) from error


def _not_begun(place: RunFolder) -> RunError:
    return RunError(
        f"{place.path} holds a run that stopped before it began; run its study again to begin it "
        "(or give --storage the URL that holds its trials)"
    )


def read_records(folder: RunFolder, archive: optuna.Study, *, trusted: bool) -> RunRecords:
    """Build the records from an Optuna study.

    Args:
        folder: the run folder.
        archive: its Optuna study.
        trusted: see `RunRecords`.

    Raises:
        RunError: if the stored content is inconsistent.
    """
    file = folder.read()
    written: dict[str, Any] = archive.user_attrs
    frame = written.get(FRAME)
    if frame is None:
        raise _not_begun(folder)
    study = folder.resolved_study()
    trials = archive.get_trials(deepcopy=False)
    records = [trial_record(trial, objectives=study.search.objectives) for trial in trials]
    baselines = [
        BaselineRecord.from_json(value, source=key)
        for key, value in written.items()
        if key.startswith(BASELINE)
    ]
    finals = [
        FinalRecord.from_json(value, source=key)
        for key, value in written.items()
        if key.startswith(FINAL)
    ]
    repeats = [
        RepeatRecord.from_json(value, source=key)
        for key, value in written.items()
        if key.startswith(REPEAT)
    ]
    tuning = read_tuning(archive)
    return RunRecords(
        folder=folder.path,
        study=study if tuning is None else tuning.with_recipe(study),
        tuning=tuning,
        groups=tuple((name, channels) for name, channels in frame["groups"]),
        reference=frame["reference"],
        trials=tuple(record for record in records if record is not None),
        baselines=tuple(sorted(baselines, key=_place)),
        repeats=tuple(sorted(repeats, key=lambda one: one.peak_bytes)),
        finals=tuple(sorted(finals, key=lambda one: one.peak_bytes)),
        classes=_classes(file, frame),
        unpruned_peak_bytes=frame["unpruned_peak_bytes"],
        smallest_peak_bytes=frame["smallest_peak_bytes"],
        warm_starts={name: len(rows) for name, rows in earlier_rows(written).items()},
        convention=frame.get(CONVENTION, "tensors"),
        worthless=frame.get(WORTHLESS),
        joint={name: varied_from_json(one) for name, one in frame.get(JOINT, {}).items()},
        lost_trials=sum(map(died_early, trials)),
        data=file.data,
        sessions=read_sessions(written),
        versions=file.versions,
        fingerprint=file.fingerprint or {},
        trusted=trusted,
        failures=tuple(
            FailureRecord.from_json(value, source=key)
            for key, value in sorted(written.items())
            if key.startswith(FAILED) and value is not None
        ),
    )


def _classes(file: RunFile, frame: Mapping[str, Any]) -> int:
    """Return the number of the network's outputs."""
    if CLASSES in frame:
        return int(frame[CLASSES])
    labels = (file.fingerprint or {}).get("data.labels")
    if labels is not None:
        return len(labels)
    # The oldest runs stored neither, but their reference accuracy is that of guessing, 1 / classes.
    return round(1 / float(frame["reference"]["accuracy"]))


def _place(baseline: BaselineRecord) -> tuple[bool, bool, float, int]:
    """Sort key: unpruned first, then pruned by ratio, then other recipes by descending peak."""
    recipe = bool(baseline.candidate.recipe_text)
    return (baseline.kind != "unpruned", recipe, baseline.ratio, -baseline.peak_bytes)
