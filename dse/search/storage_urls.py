"""URLs of storages: made absolute, and printed or stored without passwords."""

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from dse.errors import RunError

JOURNAL = "journal"
"""Scheme of a journal file of Optuna, as in ``journal:///shared/study.log``."""

GRPC = "grpc"
"""Scheme of a gRPC storage proxy of Optuna, as in ``grpc://host:13000``."""

FILE_SCHEMES = ("sqlite", JOURNAL)
"""Schemes whose database is a file on this machine or a shared disk."""

EXAMPLES = "sqlite:///study.db or postgresql://user@host/base"

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
    """Make the path of a file's URL absolute, so that it is valid in any working directory.

    Raises:
        RunError: if the text is not a URL.
    """
    parsed = parsed_url(url)
    is_file = parsed.drivername.partition("+")[0] in FILE_SCHEMES
    if not is_file or parsed.database in (None, "", ":memory:"):
        return url
    path = Path(str(parsed.database)).expanduser().resolve()
    return parsed.set(database=str(path)).render_as_string(hide_password=False)


def masked(url: str) -> str:
    """Return a URL for display: passwords become asterisks, or are left out of the query."""
    return _without_secrets(parsed_url(url)).render_as_string(hide_password=True)


def without_password(url: str) -> str:
    """Return a URL for storing in a file, without passwords."""
    parsed = _without_secrets(parsed_url(url))
    bare = URL.create(
        parsed.drivername,
        username=parsed.username,
        host=parsed.host,
        port=parsed.port,
        database=parsed.database,
        query=parsed.query,
    )
    return bare.render_as_string(hide_password=False)


def parsed_url(url: str) -> URL:
    """Parse a URL.

    Raises:
        RunError: if the text is not a URL.
    """
    try:
        return make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        # The URL stays out of the message because it may hold a password.
        raise RunError(f"the storage is no URL; write one such as {EXAMPLES}") from error


def _without_secrets(url: URL) -> URL:
    """Remove passwords from the query of a URL."""
    return url.difference_update_query([key for key in url.query if key.lower() in _SECRETS])
