"""Retries calls of a storage while it doesn't respond: restarted, frozen or locked."""

import json
import random
import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import optuna
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage

STORAGE_ERRORS = (sa.exc.SQLAlchemyError, StorageInternalError)
"""Exceptions that are raised when a storage stops responding."""

DAMAGE = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RecursionError,
)
"""Exceptions that Optuna and SQLAlchemy raise while they convert damaged content."""

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_NOTED_AFTER_SECONDS = 1.0
_BUSY = ("database is locked", "database table is locked", "database is busy")
_BACKEND = (  # what Optuna's cache calls, and `dse.search.database`
    "_create_new_trial",
    "_get_trials",
    "_set_trial_param",
    "count_running_without",
    "write_rows",
)
_PASSED_ON = (  # Optuna's own answers
    KeyError,
    UpdateFinishedTrialError,
    optuna.exceptions.DuplicatedStudyError,
)

S = TypeVar("S", bound=BaseStorage)


class Patience:
    """How long a storage may stay away, and who is notified.

    Attributes:
        seconds: time after which the storage counts as gone.
        on_wait: called with one line when a storage is away for longer than a moment, and with
            another one when it is back. Called only in the thread that made this object.
        is_stopping: returns whether the run is being stopped. Nothing is tried again then, and once
            the storage has failed, it counts as gone: a stop doesn't wait for it call by call.
    """

    def __init__(
        self,
        seconds: float = 0.0,
        on_wait: Callable[[str], None] = lambda _text: None,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Set them."""
        self.seconds = seconds
        self.on_wait = on_wait
        self.is_stopping = is_stopping
        self._gone = False
        self._owner = threading.current_thread()

    def call(self, action: Callable[[], Any], *, title: str) -> Any:
        """Call a function of a storage until the storage responds, or the patience ends.

        Args:
            action: the call; an argument-free function.
            title: the storage in messages.

        Raises:
            StorageInternalError: the last error, if the storage stayed away.
        """
        if self._gone:
            raise StorageInternalError(f"{title} doesn't respond")
        began = time.monotonic()
        pause = _FIRST_PAUSE_SECONDS
        noted = False
        while True:
            try:
                found = action()
            except Exception as error:
                away = time.monotonic() - began
                stopping = self.is_stopping()
                self._gone = stopping and is_passing(error)
                if stopping or not is_passing(error) or away >= self.seconds:
                    raise
                if away >= _NOTED_AFTER_SECONDS and not noted:
                    noted = True
                    self._note(f"{title} doesn't respond ({cause(error)}): trying again")
                time.sleep(min(pause * random.uniform(0.5, 1.0), self.seconds))  # noqa: S311
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                if noted:
                    away = time.monotonic() - began
                    self._note(f"{title} responds again after {away:.0f} s")
                return found

    def _note(self, text: str) -> None:
        if threading.current_thread() is self._owner:
            self.on_wait(text)


def patient(storage: S, patience: Patience, *, title: str) -> S:
    """Make the methods of a storage retry while it doesn't respond.

    Errors of a file or a connection become `StorageInternalError`, so that one set of exceptions
    covers databases, journals and proxies.

    Args:
        storage: the storage; it is changed.
        patience: how long is retried.
        title: the storage in messages, without passwords.
    """
    inside = threading.local()
    names = [*BaseStorage.__abstractmethods__, "get_trial", "record_heartbeat", *_BACKEND]
    for name in names:
        if hasattr(storage, name):
            retried = _retried(getattr(storage, name), storage, patience, title, inside)
            setattr(storage, name, retried)
    return storage


def _retried(
    method: Callable[..., Any],
    storage: BaseStorage,
    patience: Patience,
    title: str,
    inside: threading.local,
) -> Callable[..., Any]:
    name = method.__name__
    get_trial = storage.get_trial

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        if getattr(inside, "busy", False):  # called by another method of the storage
            return method(*args, **kwargs)
        tries = 0

        def once() -> Any:
            nonlocal tries
            tries += 1
            try:
                return _converted(method, args, kwargs)
            except UpdateFinishedTrialError:
                # An earlier try may have succeeded although its answer was lost.
                given = {**dict(zip(("trial_id", "state"), args, strict=False)), **kwargs}
                if tries > 1 and name == "set_trial_state_values":
                    return get_trial(given["trial_id"]).state == given["state"]
                raise

        inside.busy = True
        try:
            return patience.call(once, title=title)
        finally:
            inside.busy = False

    return call


def _converted(method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call a storage's method; errors of files and connections become a storage's error."""
    try:
        return method(*args, **kwargs)
    except (*STORAGE_ERRORS, *_PASSED_ON):
        raise
    except json.JSONDecodeError:  # of a journal, whose lines are JSON
        raise StorageInternalError("a line can't be read; dse doctor may repair it") from None
    except (OSError, ValueError) as error:  # a journal that can't be written, or is damaged
        raise StorageInternalError(str(error)) from error
    except Exception as error:
        if _status_of(error) is None:
            raise
        raise StorageInternalError(str(error)) from error


def is_passing(error: BaseException) -> bool:
    """Return whether a storage error may pass by itself, so that a retry makes sense."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, sa.exc.DBAPIError):
            text = str(found.orig)
            if type(found.orig).__module__.partition(".")[0] == "sqlite3":
                return any(busy in text for busy in _BUSY)
            broken = isinstance(found, sa.exc.OperationalError | sa.exc.InterfaceError)
            return (broken or found.connection_invalidated) and not _is_full(text)
        if isinstance(found, sa.exc.TimeoutError):  # of the pool of connections
            return True
        if (status := _status_of(found)) is not None:
            return status in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}
        found = found.__cause__
    return False


def cause(error: BaseException) -> str:
    """Return the first line of the database's own message behind a storage error."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:  # its text names a file in the making
        return error.strerror
    details = getattr(error, "details", None)
    if _status_of(error) is not None and callable(details):
        return str(details()).strip().partition("\n")[0]
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]


def _status_of(error: BaseException) -> str | None:
    """Return the name of the status of a gRPC error; None for another one."""
    code = getattr(error, "code", None)
    if type(error).__module__.partition(".")[0] != "grpc" or not callable(code):
        return None
    return str(getattr(code(), "name", None))


def _is_full(text: str) -> bool:
    return "No space left on device" in text or "disk full" in text
