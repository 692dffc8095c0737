"""Opens Optuna storages: databases, journal files and gRPC proxies."""

import math
import random
import sqlite3
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import URL

from dse.errors import RunError
from dse.search.database import Database
from dse.search.journal_repair import has_later_operations, has_torn_end
from dse.search.patience import DAMAGE, STORAGE_ERRORS, Patience, cause, patient
from dse.search.sqlite_files import create_whole, readable, use_write_ahead_log, write_lazily
from dse.search.storage_urls import EXAMPLES, GRPC, JOURNAL, masked, parsed_url

CONNECT_SECONDS = 10
PROXY_SECONDS = 30  # a proxy answers many workers that join at once
GRPC_PORT = 13000  # Optuna's default
_CREATION_TRIES = 20
_USED = "dse_used_seconds"  # when a connection was given back
_REST_SECONDS = 1.0
_SERVERS = ("postgresql", "mysql", "mariadb")


def open_storage(
    url: str, *, reading: bool = False, patience: Patience | None = None
) -> BaseStorage:
    """Open a storage, and create missing tables; any number of processes may do so at once.

    An SQLite file is switched to write-ahead logging. It makes the many small writes of a search
    several times faster, allows reading during a run, and survives `kill -9` and power failures.

    Args:
        url: URL as Optuna takes it, such as `sqlite:///study.db` or `postgresql://user@host/base`;
            `journal:///study.log` for a journal file, `grpc://host:13000` for a storage proxy.
        reading: don't create or change anything; an SQLite file may then be read-only.
        patience: how long calls are retried while the storage doesn't respond; not at all if None.

    Raises:
        RunError: if the URL is invalid, its driver is not installed or the server doesn't respond.
    """
    parsed = parsed_url(url)
    title = f"storage {masked(url)}"
    scheme = parsed.drivername.partition("+")[0]
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its log repeats what the records hold
    try:
        opened: BaseStorage
        if scheme == JOURNAL:
            opened = _journal(parsed, reading=reading)
        elif scheme == GRPC:
            opened = _proxy(parsed)
        else:
            opened = _database(parsed, reading=reading)
    except sa.exc.NoSuchModuleError as error:
        raise RunError(
            f"{title} can't be opened: {parsed.drivername!r} is not a known database; write a "
            f"URL such as {EXAMPLES}"
        ) from error
    except (*STORAGE_ERRORS, sqlite3.Error, OSError, UnicodeDecodeError) as error:
        # sqlite3 can't decode the message that quotes a damaged schema
        raise RunError(f"{title} can't be opened: {cause(error)}; {_advice(parsed)}") from error
    except ImportError as error:
        extra = f"'dse[{scheme}]'" if scheme in ("postgresql", GRPC) else f"a driver for {scheme}"
        raise RunError(
            f"{title} can't be opened: its database driver is not installed; pip install {extra}"
        ) from error
    except RuntimeError as error:  # tables of another Optuna release
        raise RunError(
            f"{title} was written by another release of Optuna, and this one, "
            f"{optuna.__version__}, can't read it: update optuna, or run optuna storage upgrade "
            "if the storage is the older"
        ) from error
    return patient(opened, patience or Patience(), title=title)


def close_storage(storage: BaseStorage) -> None:
    """Close the connections of a storage."""
    storage.remove_session()
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()
    elif isinstance(storage, GrpcStorageProxy):
        storage.close()


def _database(url: URL, *, reading: bool) -> Database:
    backend = url.get_backend_name()
    engine: dict[str, Any] = {"connect_args": {}}
    if backend in _SERVERS:
        engine["connect_args"]["connect_timeout"] = CONNECT_SECONDS
    if "psycopg" in url.get_driver_name():
        engine["connect_args"]["client_encoding"] = "utf8"  # a database in SQL_ASCII sends bytes
    opened = url
    if backend == "sqlite" and reading:
        opened = readable(url)
    elif backend == "sqlite":
        create_whole(url)
        use_write_ahead_log(url)
    text = _with_driver(opened)
    storage = (
        Database(text, engine_kwargs=engine, skip_table_creation=True)
        if reading
        else _with_tables(text, engine)
    )
    if backend == "sqlite" and not reading:
        write_lazily(storage.engine)
    if backend in _SERVERS:
        _ping_after_rest(storage.engine)
    return storage


def _ping_after_rest(engine: sa.Engine) -> None:
    """Have a connection that rested tried before it is used: it may have died during a training.

    SQLAlchemy's own `pool_pre_ping` tries it before each use, a tenth of what workers cost.
    """

    @sa.event.listens_for(engine, "checkin")
    def note(_connection: Any, record: Any) -> None:
        record.info[_USED] = time.monotonic()

    @sa.event.listens_for(engine, "checkout")
    def ping(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get(_USED, -math.inf) < _REST_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise sa.exc.InvalidatePoolError from error  # the pool opens another


def _with_tables(url: str, engine: dict[str, Any]) -> Database:
    """Open a database, and create the tables that are missing.

    Optuna looks which tables exist and creates the others. Of several processes that do so at once,
    all but one fail; they try again and find the tables of the first.
    """
    for left in reversed(range(_CREATION_TRIES)):
        try:
            return Database(url, engine_kwargs=engine)
        except STORAGE_ERRORS as error:
            if not left or not _lost_race(error):
                raise
            time.sleep(random.uniform(0.05, 0.3))  # noqa: S311
    raise AssertionError  # the last try returns or raises


def _lost_race(error: BaseException) -> bool:
    """Return whether the tables could not be created because another process creates them."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, sa.exc.IntegrityError):
            return True
        text = str(found)
        if "already exists" in text or "database is locked" in text or "deadlock" in text:
            return True
        found = found.__cause__
    return False


def _journal(url: URL, *, reading: bool) -> JournalStorage:
    if url.database is None:
        raise RunError("storage journal: name a file, as in journal:///shared/study.log")
    path = Path(url.database)
    if reading and not path.is_file():
        raise RunError(f"storage {url}: there is no such file; see that the name is right")
    if not reading and path.is_file() and has_torn_end(path):
        raise RunError(f"storage {url} is damaged: its last line is torn; dse doctor may repair it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            return JournalStorage(JournalFileBackend(str(path)))
        except DAMAGE as error:
            if has_later_operations(path):
                raise RunError(
                    f"storage {url} was written by a newer release of Optuna than this one, "
                    f"{optuna.__version__}: update optuna"
                ) from error
            text = " ".join(str(error).split())[:200] or type(error).__name__
            raise RunError(f"storage {url} is damaged: {text}; dse doctor may repair it") from error


def _proxy(url: URL) -> GrpcStorageProxy:
    if find_spec("grpc") is None:
        raise ImportError("grpc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        proxy = GrpcStorageProxy(host=url.host or "localhost", port=url.port or GRPC_PORT)
    try:
        proxy.wait_server_ready(timeout=PROXY_SECONDS)
    except ConnectionError:
        raise TimeoutError(f"it didn't respond within {PROXY_SECONDS:g} s") from None
    return proxy


def _advice(url: URL) -> str:
    if url.drivername.partition("+")[0] in ("sqlite", JOURNAL):
        path = Path(str(url.database))
        if path.is_file():
            return "make room if the disk is full, restore the file if it is damaged"
        return "see that its folder is there and can be written, and that the name is right"
    advice = "check that the server runs and that its name is right"
    if url.password is None and url.drivername != GRPC:
        advice += ", and give the whole URL with --storage if it needs a password (none is kept)"
    return advice


def _with_driver(url: URL) -> str:
    """Use the driver that is installed for a plain postgresql:// URL: psycopg, or psycopg2."""
    if url.drivername == "postgresql":
        driver = "psycopg" if find_spec("psycopg") or not find_spec("psycopg2") else "psycopg2"
        url = url.set(drivername=f"postgresql+{driver}")
    return url.render_as_string(hide_password=False)
