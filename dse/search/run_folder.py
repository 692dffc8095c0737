"""The run folder: its files, and the checks that a run goes on as it began."""

import json
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from dse.candidate import Candidate
from dse.config import Study, load_study, study_toml, with_budgets
from dse.errors import ConfigError, RunError
from dse.names import Mode
from dse.search.data_files import DATA_FILES_FILE
from dse.search.folder_lock import FolderLock, locked, place_of
from dse.search.kept import KEPT_FOLDER
from dse.search.origin import study_name_of
from dse.search.run_file import RUN_FILE, RunFile, package_versions, read_run_file
from dse.search.setting_changes import first_difference
from dse.search.storage_urls import absolute_url, masked, sqlite_url, without_password
from dse.search.whole_files import unwritable, write_whole
from dse.trust.seal import is_sealed
from dse.trust.studies import modules_inside, sealed_content
from dse.units import PeakShare

STUDY_FILE = "study.toml"
DATABASE_FILE = "study.db"
LOCK_FILE = "lock"
MEMORY_MODEL_FILE = "memory_model.npz"
INFERENCE_MODEL_FILE = "inference_memory_model.npz"
VARIANTS_FOLDER = "memory_models"
WORKERS_FOLDER = "workers"
"""Run folders of the further workers that one command starts."""

_OURS = frozenset(
    {
        LOCK_FILE,
        STUDY_FILE,
        RUN_FILE,
        DATABASE_FILE,
        *(f"{DATABASE_FILE}-{kind}" for kind in ("wal", "shm", "journal")),
        MEMORY_MODEL_FILE,
        INFERENCE_MODEL_FILE,
        VARIANTS_FOLDER,
        DATA_FILES_FILE,
        KEPT_FOLDER,
        WORKERS_FOLDER,
    }
)
"""Files that a run may have put into its folder before it writes `run.json`."""


@dataclass(frozen=True)
class RunFolder:
    """A run folder, new or with a run in it.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def is_run(self) -> bool:
        """Whether the folder holds a run."""
        return (self.path / RUN_FILE).is_file()

    @property
    def place(self) -> str:
        """Identifies the locked folder on this machine; a copy of the folder differs."""
        return place_of(self.path / LOCK_FILE)

    @property
    def memory_model(self) -> Path:
        """File of the compiled memory model of the training step."""
        return self.path / MEMORY_MODEL_FILE

    @property
    def inference_model(self) -> Path:
        """File of the compiled memory model of inference, written if an objective needs it."""
        return self.path / INFERENCE_MODEL_FILE

    def memory_model_of(self, recipe: Candidate, mode: Mode = "training") -> Path:
        """Return the file of a recipe's memory model.

        Args:
            recipe: see `dse.methods.workbench.memory_recipe`; the file of the study's own recipe
                has no digest in its name.
            mode: mode of the step.
        """
        if recipe == Candidate():
            return self.memory_model if mode == "training" else self.inference_model
        return self.path / VARIANTS_FOLDER / f"{mode}-{recipe.digest}.npz"

    def variants(self) -> tuple[Path, ...]:
        """Return the stored memory models of recipes other than the study's own."""
        return tuple(sorted((self.path / VARIANTS_FOLDER).glob("*.npz")))

    def create(self) -> None:
        """Create the folder.

        Raises:
            RunError: if it can't be created, holds files but no run, or its name can't be part of
                a database URL.
        """
        sqlite_url(self.path / DATABASE_FILE)  # refuse a bad name before the folder exists
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            present = {entry.name for entry in self.path.iterdir()}
        except OSError as error:
            raise RunError(
                f"{self.path} can't be used as a run folder: {error.strerror}; "
                "give --out another folder"
            ) from error
        foreign = sorted(name for name in present if name.split(".partial")[0] not in _OURS)
        if foreign and not self.is_run:
            raise RunError(
                f"{self.path} holds {foreign[0]!r} but no run; give --out a new or empty folder"
            )

    def forked(self, study: Study, *, on_message: Callable[[str], None]) -> Path:
        """Return the folder of a run of a study: this one, or one beside it.

        Args:
            study: the resolved study.
            on_message: called with one line if this folder holds a run with other settings.
        """
        if not self.is_run or self.study().meaning_digest == study.meaning_digest:
            return self.path
        beside = self.path.with_name(f"{self.path.name}-{study.meaning_digest[:8]}")
        on_message(f"{self.path} holds a run with other settings: this one goes to {beside}")
        return beside

    @contextmanager
    def locked(self) -> Iterator[FolderLock]:
        """Lock the folder, so that no other process runs in it.

        Raises:
            RunError: if another process holds the lock (the message gives its id), or the folder
                can't be written.
        """
        with locked(self.path / LOCK_FILE) as lock:
            try:
                self._clear_partial()
            except OSError as error:
                raise unwritable(self.path, error) from error
            yield lock

    def _clear_partial(self) -> None:
        """Remove files that a killed process left half written; the lock must be held."""
        for left in self.path.glob("*.partial*"):
            if left.name.split(".partial")[0] not in _OURS:
                continue
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()

    def read(self) -> RunFile:
        """Read `run.json`.

        Raises:
            RunError: if the folder holds no run, or the file is damaged.
        """
        return read_run_file(self.path)

    def resolved_study(self) -> Study:
        """Load the study with its budgets in bytes.

        Raises:
            ConfigError: if the study file is missing or no longer valid.
            RunError: if budgets are shares and the run stopped before it computed their bytes.
        """
        study, budgets = self.study(), self.read().budgets
        if budgets is not None:
            return with_budgets(study, budgets)
        if any(isinstance(one, PeakShare) for one in study.search.budgets):
            raise RunError(
                f"{self.path} holds a run that stopped before it began; run its study again"
            )
        return study

    def study(self) -> Study:
        """Load the study as it was written.

        Raises:
            ConfigError: if the study file is missing or no longer valid.
        """
        try:
            # Releases that wrote no space.joint searched over ratios alone.
            return load_study(self.path / STUDY_FILE, joint=False)
        except ConfigError as error:
            if (later := self._later_release()) is None:
                raise
            raise ConfigError(
                f"{self.path / STUDY_FILE} was written by dse {later}, a newer release than this "
                f"one, {version('dse')}: update dse"
            ) from error

    def _later_release(self) -> str | None:
        """Return the release that wrote the run, if it is newer than this one."""
        if not self.is_run:
            return None
        written = self.read().versions.get("dse", "")
        try:
            return written if Version(written) > Version(version("dse")) else None
        except InvalidVersion:
            return None

    def describe(self, study: Study, *, storage: str | None) -> RunFile:
        """Return the content for `run.json`, after checking it against a run that exists here.

        Args:
            study: the resolved study.
            storage: URL requested by the user; None keeps the run's own.

        Raises:
            RunError: if the storage, or settings that change results, differ from the run's.
        """
        given = None if storage is None else without_password(absolute_url(storage))
        if not self.is_run:
            return RunFile(
                identity=uuid.uuid4().hex,
                study_name=study_name_of(study),
                storage=given,
                versions=package_versions(),
            )
        known = self.read()
        self._check_settings(study)
        if given is None:
            self.check_storage(known, trusted=self.is_own(known))
        if given not in (None, known.storage):
            kept = "its own file" if known.storage is None else masked(known.storage)
            raise RunError(
                f"{self.path} keeps its trials in {kept}, not in {masked(str(given))}; "
                "leave --storage out, or give --out another folder"
            )
        return known.model_copy(update={"versions": package_versions()})

    def is_own(self, run: RunFile) -> bool:
        """Return whether this machine made the run, with the code and storage it now refers to.

        The seal in `run.json` needs a secret of this machine, so a copied folder can't forge it. It
        is valid for one network, data, storage and location of each module. Modules inside the run
        folder came with the folder and are never trusted.

        Args:
            run: the content of `run.json`.
        """
        study = self.study()
        content = sealed_content(study, identity=run.identity, storage=run.storage)
        return is_sealed(content, run.seal) and not modules_inside(self.path, study)

    def check_storage(self, run: RunFile, *, trusted: bool) -> None:
        """Check that a run from elsewhere doesn't make us open a storage outside its folder.

        Args:
            run: the content of `run.json`.
            trusted: whether this machine made the run, or the user vouches for it.

        Raises:
            RunError: if it names another storage, or its own database is a link or not a file.
        """
        if trusted:
            return
        if run.storage is not None:
            raise RunError(
                f"{self.path} was not made on this machine and keeps its trials in "
                f"{masked(run.storage)}: give that URL with --storage, or --trust"
            )
        for name in (DATABASE_FILE, f"{DATABASE_FILE}-wal", f"{DATABASE_FILE}-shm"):
            path = self.path / name
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise RunError(
                    f"{self.path} was not made on this machine and its {name} is not a file of its "
                    "own: leave it, or give --trust"
                )

    def confirm(
        self,
        run: RunFile,
        fingerprint: Mapping[str, Any],
        *,
        excused: Collection[str] = (),
    ) -> None:
        """Check that the network and the data are those that the run began with.

        Args:
            run: the content of `run.json`.
            fingerprint: the fingerprint now; keys that an older run didn't store are ignored.
            excused: keys that may differ.

        Raises:
            RunError: if they differ; the message names the key.
        """
        known = run.fingerprint or {}
        for key, value in fingerprint.items():
            before = known.get(key, value)
            if before != value and key not in excused:
                raise RunError(
                    f"{self.path} was run with {key} = {before}, now it is {value}; results would "
                    "not compare: restore it, or run the study into another folder with --out"
                )

    def write(self, run: RunFile, study: Study) -> None:
        """Write `study.toml`, then `run.json`, each of them atomically."""
        write_whole(self.path / STUDY_FILE, study_toml(study))
        write_whole(self.path / RUN_FILE, f"{json.dumps(run.model_dump(), indent=2)}\n")

    def storage_url(self, run: RunFile, *, given: str | None) -> str:
        """Return the URL to open: the given one, which may hold a password, or the stored one."""
        if given is not None:
            return absolute_url(given)
        return run.storage or sqlite_url(self.path / DATABASE_FILE)

    def check_database(self, run: RunFile, *, given: str | None) -> None:
        """Check that a run that keeps its trials in the folder's own database still has it.

        Args:
            run: the content of `run.json`.
            given: URL of a storage to open instead of the stored one.

        Raises:
            RunError: if the database is missing or empty.
        """
        own = self.path / DATABASE_FILE
        if given is not None or run.storage is not None or (own.is_file() and own.stat().st_size):
            return
        what = f"an empty {DATABASE_FILE}" if own.is_file() else f"lost its {DATABASE_FILE}"
        raise RunError(
            f"{self.path} has {what}; restore it, or run the study into another folder with --out"
        )

    def _check_settings(self, study: Study) -> None:
        before = self.study()
        if before.meaning_digest == study.meaning_digest:
            return
        key, old, new = first_difference(before, study)
        raise RunError(
            f"{self.path} was run with {key} = {old}, now it is {new}; results would not compare: "
            "give --out another folder or --fork, or set it back"
        )
