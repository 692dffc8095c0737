"""Opens Optuna storages, and prints their URLs without passwords."""

import os
import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url

from dse.atomic import move_if_free
from dse.errors import RunError

CONNECT_SECONDS = 10
STORAGE_ERRORS = (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)
"""Exceptions that are raised when a storage stops responding."""

_SECRETS = frozenset({"password", "passwd", "sslpassword"})


def sqlite_url(path: Path) -> str:
    """Return the URL of an SQLite file.

    Raises:
        RunError: if the path contains a character that the URL can't.
    """
    resolved = str(path.resolve())
    if "?" in resolved:
        raise RunError(f"{path} can't contain '?', which ends a path in a URL: name another folder")
    return f"sqlite:///{resolved}"


def absolute_url(url: str) -> str:
    """Make the path in an SQLite URL absolute, so that it is valid in any working directory.

    Raises:
        RunError: if the text is not a URL.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        return url
    path = Path(str(parsed.database)).expanduser().resolve()
    return parsed.set(database=str(path)).render_as_string(hide_password=False)


def masked(url: str) -> str:
    """Return a URL for display: passwords become asterisks, or are left out of the query."""
    return _without_secrets(_parsed(url)).render_as_string(hide_password=True)


def without_password(url: str) -> str:
    """Return a URL for storing in a file, without passwords."""
    parsed = _without_secrets(_parsed(url))
    bare = URL.create(
        parsed.drivername,
        username=parsed.username,
        host=parsed.host,
        port=parsed.port,
        database=parsed.database,
        query=parsed.query,
    )
    return bare.render_as_string(hide_password=False)


def open_storage(url: str, *, reading: bool = False) -> RDBStorage:
    """Open a storage, and create missing tables.

    An SQLite file is switched to write-ahead logging. It makes the many small writes of a search
    several times faster, allows reading during a run, and survives `kill -9` and power failures.

    Args:
        url: URL as Optuna takes it, such as `sqlite:///study.db` or `postgresql://user@host/base`.
        reading: don't create or change anything; an SQLite file may then be read-only.

    Raises:
        RunError: if the URL is invalid, its driver is not installed or the server doesn't respond.
    """
    parsed = _parsed(url)
    backend = parsed.get_backend_name()
    connect: dict[str, Any] = {}
    if backend in ("postgresql", "mysql", "mariadb"):
        connect["connect_timeout"] = CONNECT_SECONDS
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its log repeats what the records hold
    try:
        opened = parsed
        if backend == "sqlite" and reading:
            opened = _readable(parsed)
        elif backend == "sqlite":
            _create_whole(parsed)
            _use_write_ahead_log(parsed)
        storage = RDBStorage(
            _with_driver(opened),
            engine_kwargs={"connect_args": connect},
            skip_table_creation=reading,
        )
    except sa.exc.NoSuchModuleError as error:
        raise RunError(
            f"storage {masked(url)} can't be opened: {parsed.drivername!r} is no database that is "
            "known; write a URL such as sqlite:///study.db or postgresql://user@host/base"
        ) from error
    except (*STORAGE_ERRORS, sqlite3.Error, OSError) as error:
        raise RunError(
            f"storage {masked(url)} can't be opened: {cause(error)}; {_advice(parsed)}"
        ) from error
    except ImportError as error:
        package = "'dse[postgresql]'" if backend == "postgresql" else f"a driver for {backend}"
        raise RunError(
            f"storage {masked(url)} can't be opened: its database driver is not installed; "
            f"pip install {package}"
        ) from error
    except RuntimeError as error:  # tables of another Optuna release
        raise RunError(f"storage {masked(url)} can't be opened: {cause(error)}") from error
    if backend == "sqlite" and not reading:
        sa.event.listen(storage.engine, "connect", _write_lazily)
        storage.engine.dispose()  # connections opened before the listener
    return storage


def cause(error: BaseException) -> str:
    """Return the first line of the database's own message behind a storage error."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:  # its text names a file in the making
        return error.strerror
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]


def _advice(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database))
        if path.is_file():
            return "make room if the disk is full, restore the file if it is damaged"
        return "see that its folder is there and can be written, and that the name is right"
    advice = "check that the server runs and that its name is right"
    if url.password is None:
        advice += ", and give the whole URL with --storage if it needs a password (none is kept)"
    return advice


def _readable(url: URL) -> URL:
    """Return a URL that opens an SQLite file without changing it.

    Raises:
        RunError: if the file doesn't exist.
    """
    path = Path(str(url.database))
    if not path.is_file():
        raise RunError(f"storage {url}: there is no such file; see that the name is right")
    if _is_writable(path):
        return url
    # In write-ahead mode SQLite creates files beside the database, unless it is marked immutable.
    log = path.with_name(f"{path.name}-wal")
    still = "" if log.is_file() and log.stat().st_size else "&immutable=1"
    return make_url(f"sqlite:///file:{quote(str(path.resolve()))}?mode=ro{still}&uri=true")


def _is_writable(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _create_whole(url: URL) -> None:
    """Create an SQLite file with all its tables in a temporary folder, then move it in place.

    A crash leaves either no file or a complete one. If several processes create the same file, the
    first one wins and the others open its file.
    """
    if url.database in (None, "", ":memory:"):
        raise RunError(
            f"storage {url}: a run needs a storage that outlives it; name a file, as in "
            "sqlite:///study.db"
        )
    path = Path(str(url.database))
    if path.is_file() and path.stat().st_size:
        return
    with TemporaryDirectory(prefix=f"{path.name}.partial-", dir=path.parent) as name:
        made = Path(name) / path.name
        _use_write_ahead_log(url.set(database=str(made)))
        storage = RDBStorage(url.set(database=str(made)).render_as_string(hide_password=False))
        storage.remove_session()
        storage.engine.dispose()  # the last connection moves the log into the file
        if path.is_file() and not path.stat().st_size:
            path.unlink()  # SQLite treats an empty file as a new database
        move_if_free(made, path)


def _use_write_ahead_log(url: URL) -> None:
    """Switch a database to write-ahead logging; the setting is stored in the file."""
    with closing(sqlite3.connect(str(url.database))) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _write_lazily(connection: sqlite3.Connection, _record: object) -> None:
    """Wait for the disk at checkpoints only, which is safe in write-ahead mode."""
    connection.execute("PRAGMA synchronous=NORMAL")


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        # The URL stays out of the message because it may hold a password.
        raise RunError(
            "the storage is no URL; write one such as sqlite:///study.db or "
            "postgresql://user@host/base"
        ) from error


def _without_secrets(url: URL) -> URL:
    """Remove passwords from the query of a URL."""
    return url.difference_update_query([key for key in url.query if key.lower() in _SECRETS])


def _with_driver(url: URL) -> str:
    """Use psycopg2 for a plain postgresql:// URL if psycopg is not installed but psycopg2 is."""
    if url.drivername == "postgresql" and find_spec("psycopg") is None and find_spec("psycopg2"):
        url = url.set(drivername="postgresql+psycopg2")
    return url.render_as_string(hide_password=False)
