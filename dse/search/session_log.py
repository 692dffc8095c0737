"""Records in a run's storage when, how long and on which machine each session worked on it."""

import platform
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import optuna
import torch

from dse.config import Study
from dse.memory.machine import processor_model
from dse.networks.cores import logical_cores
from dse.results.sessions import SessionRecord
from dse.search.patience import STORAGE_ERRORS

SESSION = "session:"
"""Begins the name of each study attribute that holds a session."""


class SessionLog:
    """Times a session. Its start is stored by `begin`, its end when the `with` block is left.

    Names in the storage are random, so that sessions of several run folders may share one. A
    session that is killed has no end.
    """

    def __init__(self) -> None:
        """Start the clock."""
        self._started = datetime.now(UTC)
        self._started_seconds = time.monotonic()
        self._stored: tuple[optuna.Study, str, SessionRecord] | None = None

    def begin(self, archive: optuna.Study, study: Study) -> None:
        """Store the start.

        Args:
            archive: the Optuna study of the run.
            study: the study, which determines device and threads.
        """
        device = study.training.device
        record = SessionRecord(
            started=_written(self._started),
            processor=processor_of(device),
            cores=logical_cores(),
            threads=study.training.threads or torch.get_num_threads(),
            device=device,
        )
        self._stored = (archive, f"{SESSION}{uuid.uuid4().hex}", record)
        archive.set_user_attr(self._stored[1], record.model_dump())

    def __enter__(self) -> Self:
        """Do nothing: the clock runs since the log was made."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Store the end, unless the storage is what failed."""
        if self._stored is None or isinstance(error, STORAGE_ERRORS):
            return
        archive, key, record = self._stored
        known = {
            "ended": _written(datetime.now(UTC)),
            "wall_seconds": round(time.monotonic() - self._started_seconds, 3),
        }
        with suppress(*STORAGE_ERRORS):  # the error or the stop that ended the session counts
            archive.set_user_attr(key, record.model_copy(update=known).model_dump())


def read_sessions(written: Mapping[str, Any]) -> tuple[SessionRecord, ...]:
    """Read the sessions of a run, in the order in which they started.

    Args:
        written: the attributes of its Optuna study.

    Raises:
        RunError: if one of them is damaged.
    """
    records = [
        SessionRecord.from_json(value, source=key)
        for key, value in written.items()
        if key.startswith(SESSION)
    ]
    return tuple(sorted(records, key=lambda one: one.started))


def _written(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def processor_of(device: str) -> str:
    """Return the model of this machine's processor; with a GPU, its model after it."""
    model = processor_model() or platform.machine()
    if torch.device(device).type != "cuda":
        return model
    return f"{model}, {torch.cuda.get_device_properties(device).name}"
