"""The file `run.json` of a run folder, which identifies a run and what it was made from."""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dse.config import Study
from dse.data.summary import DataSummary
from dse.errors import RunError
from dse.textfiles import read_text
from dse.trust.seal import make_seal
from dse.trust.studies import sealed_content

RUN_FILE = "run.json"


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

    def completed(
        self,
        fingerprint: Mapping[str, Any],
        *,
        model_key: str,
        budgets: tuple[int, ...],
        data: DataSummary | None = None,
    ) -> "RunFile":
        """Return a copy with what is known once the network and the data were read."""
        known = {
            "fingerprint": dict(fingerprint),
            "model_key": model_key,
            "budgets": budgets,
            "data": data,
        }
        return self.model_copy(update=known)

    def sealed(self, study: Study) -> "RunFile":
        """Return a copy with a seal, by which later commands here recognise the run as their own.

        Its seal is None if this machine can't store a secret.

        Args:
            study: the study as it is written into the run folder.
        """
        content = sealed_content(study, identity=self.identity, storage=self.storage)
        return self.model_copy(update={"seal": make_seal(content)})


def read_run_file(folder: Path) -> RunFile:
    """Read `run.json`.

    Raises:
        RunError: if the folder holds no run, or the file is damaged.
    """
    path = folder / RUN_FILE
    try:
        return RunFile.model_validate_json(read_text(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        why = "it is a file" if folder.is_file() else f"it has no {RUN_FILE}"
        raise RunError(
            f"{folder} is not a run folder: {why}; name one that dse run wrote"
        ) from error
    except OSError as error:
        raise RunError(f"{path} can't be read: {error.strerror}") from error
    except (ValidationError, UnicodeDecodeError) as error:
        if _is_newer(path):
            raise RunError(f"{path} was written by a newer release: update dse") from error
        raise RunError(
            f"{path} is damaged: restore it, or start again in another folder"
        ) from error


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    packages = ("dse", "torch", "torchvision", "optuna", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _is_newer(path: Path) -> bool:
    """Return whether a file that can't be parsed was written in a later format version."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return False
    version = content.get("version") if isinstance(content, dict) else None
    return isinstance(version, int) and version > 1
