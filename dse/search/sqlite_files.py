"""SQLite files: created whole, opened for reading without a change, and written ahead."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import sqlalchemy as sa
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url

from dse.atomic import move_if_free
from dse.errors import RunError


def readable(url: URL) -> URL:
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


def create_whole(url: URL) -> None:
    """Create an SQLite file with all its tables in a temporary folder, then move it in place.

    A crash leaves either no file or a complete one. If several processes create the same file, the
    first one wins and the others open its file.

    Raises:
        RunError: if the URL names no file.
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
        use_write_ahead_log(url.set(database=str(made)))
        storage = RDBStorage(url.set(database=str(made)).render_as_string(hide_password=False))
        storage.remove_session()
        storage.engine.dispose()  # the last connection moves the log into the file
        if path.is_file() and not path.stat().st_size:
            path.unlink()  # SQLite treats an empty file as a new database
        move_if_free(made, path)


def use_write_ahead_log(url: URL) -> None:
    """Switch a file to write-ahead logging unless it is; the setting is stored in the file."""
    with closing(sqlite3.connect(str(url.database))) as connection:
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            connection.execute("PRAGMA journal_mode=WAL")


def write_lazily(engine: sa.Engine) -> None:
    """Wait for the disk at checkpoints only, which is safe in write-ahead mode."""

    def relax(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")

    sa.event.listen(engine, "connect", relax)
    engine.dispose()  # connections that were opened before


def _is_writable(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
