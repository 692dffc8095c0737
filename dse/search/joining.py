"""How a run meets the other workers of its study, if it has any."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from optuna.storages import BaseStorage

from dse.config import Study
from dse.search.folder_lock import machine_digest
from dse.search.origin import registered_name
from dse.search.progress import Observer
from dse.search.run_file import RunFile
from dse.search.run_folder import RunFolder
from dse.search.session_log import processor_of
from dse.search.workers import Alone, Colleagues, Pace, Workers


@dataclass(frozen=True, kw_only=True)
class Joining:
    """How a run joins the workers of its study.

    Attributes:
        workers: number of processes on this machine that work on the study, this one included.
        allow_mismatch: join a study that began with other settings, another network or other data.
        fork: begin a study of its own where one with other settings exists.
        study_name: name of the Optuna study to join; the register of the storage decides if None.
        pace: how often workers look at each other.
        threads: CPU threads that the command which started this worker has chosen for it; None to
            choose them here. A study that sets `training.threads` keeps to that.
    """

    workers: int = 1
    allow_mismatch: bool = False
    fork: bool = False
    study_name: str | None = None
    pace: Pace | None = None
    threads: int | None = None

    def is_shared(self, file: RunFile) -> bool:
        """Return whether other workers may use the storage of a run."""
        return self.workers > 1 or file.storage is not None

    def named(
        self, file: RunFile, study: Study, storage: BaseStorage, *, begun: bool, observer: Observer
    ) -> RunFile:
        """Return the content of `run.json` with the name of the Optuna study to work on.

        Args:
            file: the content, with a name that follows from the settings.
            study: the run's study.
            storage: its storage.
            begun: whether the run folder has worked on the study before, so that the name is known.
            observer: receives messages.

        Raises:
            RunError: if the storage holds the study with other settings.
        """
        if begun or not self.is_shared(file):
            return file
        name = self.study_name or registered_name(
            study,
            storage,
            fork=self.fork,
            allow_mismatch=self.allow_mismatch,
            on_message=observer.on_message,
        )
        return file.model_copy(update={"study_name": name})

    @contextmanager
    def colleagues(
        self, storage: BaseStorage, file: RunFile, folder: RunFolder, study: Study
    ) -> Iterator[Colleagues]:
        """Join the other workers of a study, if its storage is one that others may use."""
        if not self.is_shared(file):
            yield Alone()
            return
        device = study.training.device
        about = {
            "device": device,
            "processor": processor_of(device),
            "versions": dict(file.versions),
        }
        with Workers(
            storage,
            file.study_name,
            about=about,
            place=folder.place,
            machine=machine_digest(),
            pace=self.pace,
        ) as workers:
            yield workers
