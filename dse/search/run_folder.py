"""The run folder: its files, its lock, and the check that a run's settings stay the same."""

import fcntl
import json
import os
import platform
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dse.candidate import Candidate
from dse.config import Study, load_study, study_toml, with_budgets
from dse.config.digest import meaning_digest
from dse.data.summary import DataSummary
from dse.errors import RunError
from dse.names import Mode
from dse.search.data_files import DATA_FILES_FILE
from dse.search.storage import absolute_url, masked, sqlite_url, without_password
from dse.textfiles import read_text
from dse.trust.seal import is_sealed, make_seal
from dse.trust.studies import modules_inside, sealed_content
from dse.units import PeakShare

STUDY_FILE = "study.toml"
RUN_FILE = "run.json"
DATABASE_FILE = "study.db"
LOCK_FILE = "lock"
MEMORY_MODEL_FILE = "memory_model.npz"
INFERENCE_MODEL_FILE = "inference_memory_model.npz"
VARIANTS_FOLDER = "memory_models"
_MISSING = "(not set)"
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
    }
)
"""Files that a run may have put into its folder before it writes `run.json`."""


class RunFile(BaseModel):
    """The content of `run.json`.

    Attributes:
        version: version of this file's format.
        identity: random id that marks the trials of this folder's process in a shared storage.
        study_name: name of the study in the storage.
        storage: URL without password; None if the storage is the folder's own SQLite file.
        versions: versions of the packages that the last run used.
        fingerprint: identifies the network's shape and the data, which the study file doesn't show.
        model_key: digest of everything that the memory models here were compiled from.
        data: summary of the data.
        seal: made by the machine that ran the study; see `RunFolder.is_own`.
        budgets: bytes, ascending; includes those given as shares of the unpruned peak.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    identity: str
    study_name: str
    storage: str | None
    versions: Mapping[str, str]
    fingerprint: Mapping[str, Any] | None = None
    model_key: str | None = None
    data: DataSummary | None = None
    seal: str | None = None
    budgets: tuple[int, ...] | None = None


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
            recipe: see `dse.search.costs.memory_recipe`; the file name of the study's own recipe
                has no digest.
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

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder, so that no other process runs in it.

        Raises:
            RunError: if another process holds the lock; the message gives its pid.
        """
        with _open_lock(self.path / LOCK_FILE) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = (self.path / LOCK_FILE).read_text(encoding="utf-8").strip() or "unknown"
                raise RunError(
                    f"{self.path} is in use by process {holder}; wait for it to end, "
                    "or give --out another folder"
                ) from error
            try:
                os.ftruncate(file, 0)
                os.write(file, f"{os.getpid()}\n".encode())
                self._clear_partial()
            except OSError as error:
                raise _unwritable(self.path / LOCK_FILE, error) from error
            yield

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
        path = self.path / RUN_FILE
        try:
            return RunFile.model_validate_json(read_text(path))
        except (FileNotFoundError, NotADirectoryError) as error:
            why = "it is a file" if self.path.is_file() else f"it has no {RUN_FILE}"
            raise RunError(
                f"{self.path} is no run folder: {why}; name one that dse run wrote"
            ) from error
        except OSError as error:
            raise RunError(f"{path} can't be read: {error.strerror}") from error
        except (ValidationError, UnicodeDecodeError) as error:
            if _is_newer(path):
                raise RunError(f"{path} was written by a newer release: update dse") from error
            raise RunError(
                f"{path} is damaged: restore it, or start again in another folder"
            ) from error

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
        return load_study(self.path / STUDY_FILE)

    def describe(self, study: Study, *, storage: str | None) -> RunFile:
        """Return the content for `run.json`, after checking it against a run that exists here.

        Args:
            study: the resolved study.
            storage: URL requested by the user; None keeps the run's own.

        Raises:
            RunError: if the storage, or settings that change results, differ from the run's.
        """
        asked = None if storage is None else without_password(absolute_url(storage))
        if not self.is_run:
            return RunFile(
                identity=uuid.uuid4().hex,
                study_name=f"{study.name}-{study.meaning_digest[:8]}",
                storage=asked,
                versions=_versions(),
            )
        known = self.read()
        self._check_settings(study)
        if asked is None:
            self.check_storage(known, trusted=self.is_own(known))
        if asked not in (None, known.storage):
            kept = "its own file" if known.storage is None else masked(known.storage)
            raise RunError(
                f"{self.path} keeps its trials in {kept}, not in {masked(str(asked))}; "
                "leave --storage out, or give --out another folder"
            )
        return known.model_copy(update={"versions": _versions()})

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
                    f"{self.path} was not made on this machine and its {name} is no file of its "
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

    @staticmethod
    def completed(
        run: RunFile,
        fingerprint: Mapping[str, Any],
        *,
        model_key: str,
        budgets: tuple[int, ...],
        data: DataSummary | None = None,
    ) -> RunFile:
        """Add what is known once the network and the data were read."""
        known = {
            "fingerprint": dict(fingerprint),
            "model_key": model_key,
            "budgets": budgets,
            "data": data,
        }
        return run.model_copy(update=known)

    @staticmethod
    def sealed(run: RunFile, study: Study) -> RunFile:
        """Add a seal by which later commands on this machine recognise the run as its own.

        Returns:
            A copy; its seal is None if this machine can't store a secret.
        """
        content = sealed_content(study, identity=run.identity, storage=run.storage)
        return run.model_copy(update={"seal": make_seal(content)})

    def write(self, run: RunFile, study: Study) -> None:
        """Write `study.toml`, then `run.json`, each of them atomically."""
        _write_whole(self.path / STUDY_FILE, study_toml(study))
        _write_whole(self.path / RUN_FILE, f"{json.dumps(run.model_dump(), indent=2)}\n")

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
            "give --out another folder, or set it back"
        )


def first_difference(before: Study, after: Study) -> tuple[str, str, str]:
    """Find the first setting that differs and changes results; return its key and both values."""
    old, new = (study.model_dump(mode="json", exclude_none=True) for study in (before, after))
    leaves = {**_leaves(old), **_leaves(new)}
    for keys in map(partial(_common, old, new), leaves):
        value, other = _at(old, keys), _at(new, keys)
        if value == other:
            continue
        # Only settings that change the digest change results.
        if meaning_digest(_with(old, keys, other)) != meaning_digest(old):
            return ".".join(keys), _shown(value), _shown(other)
    raise ValueError("the studies mean the same")


def _leaves(table: Mapping[str, Any], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for key, value in table.items():
        inner = _leaves(value, (*above, key)) if isinstance(value, dict) else {}
        found.update(inner or {(*above, key): value})
    return found


def _common(
    old: Mapping[str, Any], new: Mapping[str, Any], keys: tuple[str, ...]
) -> tuple[str, ...]:
    """Shorten a key to the first table on its path that one of the two studies lacks entirely."""
    for depth in range(1, len(keys)):
        if _MISSING in (_at(old, keys[:depth]), _at(new, keys[:depth])):
            return keys[:depth]
    return keys


def _at(table: Mapping[str, Any], keys: tuple[str, ...]) -> object:
    value: Any = table
    for key in keys:
        value = value.get(key, _MISSING) if isinstance(value, dict) else _MISSING
    return value


def _with(table: Mapping[str, Any], keys: tuple[str, ...], value: object) -> dict[str, Any]:
    first, *rest = keys
    copy = dict(table)
    if rest:
        inner = copy.get(first)
        copy[first] = _with(inner if isinstance(inner, dict) else {}, tuple(rest), value)
    elif value is _MISSING:
        copy.pop(first, None)
    else:
        copy[first] = value
    return copy


def _shown(value: object) -> str:
    return _MISSING if value is _MISSING else json.dumps(value)


@contextmanager
def _open_lock(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise RunError(
            f"{path} can't be written: {error.strerror}; give --out another folder"
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_newer(path: Path) -> bool:
    """Return whether a file that can't be parsed was written in a later format version."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return False
    version = content.get("version") if isinstance(content, dict) else None
    return isinstance(version, int) and version > 1


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # after a power failure, a renamed file could be empty
        partial.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> RunError:
    return RunError(
        f"{path} can't be written: {error.strerror}; make room or see that it can be written, and "
        "run again"
    )


def _versions() -> dict[str, str]:
    packages = ("dse", "torch", "torchvision", "torch-pruning", "optuna", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
