"""Reading a run folder back, while its run goes on or after."""

from pathlib import Path
from typing import Any

import optuna

from dse.errors import RunError
from dse.search.baselines import BASELINE
from dse.search.finals import FINAL
from dse.search.records import BaselineRecord, FinalRecord, RunRecords
from dse.search.run_folder import DATABASE_FILE, RunFolder
from dse.search.storage import masked, open_storage
from dse.search.trials import died_early, trial_record

FRAME = "frame"
"""Study attribute with what is known before the first trial: groups, reference, extreme peaks."""


def load_run(folder: Path, *, storage: str | None = None) -> RunRecords:
    """Read what a run has found so far; nothing is locked or changed.

    Args:
        folder: written by `run`.
        storage: URL of the run's storage, where it needs a password (which is not kept).

    Raises:
        RunError: if the folder holds no run, or its storage can't be read.
    """
    place = RunFolder(folder)
    file = place.read()
    if storage is None and file.storage is None and not (folder / DATABASE_FILE).is_file():
        raise RunError(f"{folder} has lost its {DATABASE_FILE}; restore it, or run the study again")
    url = place.storage_url(file, given=storage)
    opened = open_storage(url)
    try:
        archive = optuna.load_study(study_name=file.study_name, storage=opened)
    except KeyError as error:
        raise RunError(
            f"storage {masked(url)} has no study {file.study_name!r}, which {folder} was run in; "
            "give its own storage with --storage, or run the study again in another folder"
        ) from error
    try:
        return read_records(place, archive)
    finally:
        opened.engine.dispose()


def read_records(folder: RunFolder, archive: optuna.Study) -> RunRecords:
    """Build the records from an Optuna study.

    Raises:
        RunError: if what is stored doesn't make sense.
    """
    study = folder.study()
    written: dict[str, Any] = archive.user_attrs
    frame = written.get(FRAME)
    if frame is None:
        raise RunError(f"{folder.path} holds a run that died before it began; run it again")
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
    return RunRecords(
        folder=folder.path,
        study=study,
        groups=tuple((name, channels) for name, channels in frame["groups"]),
        reference=frame["reference"],
        trials=tuple(record for record in records if record is not None),
        baselines=tuple(sorted(baselines, key=lambda one: (one.kind != "unpruned", one.ratio))),
        finals=tuple(sorted(finals, key=lambda one: one.peak_bytes)),
        unpruned_peak_bytes=frame["unpruned_peak_bytes"],
        smallest_peak_bytes=frame["smallest_peak_bytes"],
        lost_trials=sum(map(died_early, trials)),
    )
