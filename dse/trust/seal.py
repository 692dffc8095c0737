"""A seal that only this user's machine can make, to tell a run made here from a copied one."""

import hmac
import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dse.atomic import move_if_free
from dse.digests import canonical_json

STATE_VARIABLE = "DSE_STATE"
_KEY_FILE = "seal.key"
_KEY_BYTES = 32


def state_folder() -> Path:
    """Return the folder of data that can't be recreated: `$DSE_STATE` or `~/.local/state/dse`."""
    named = os.environ.get(STATE_VARIABLE)
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "dse"


def make_seal(content: Mapping[str, Any]) -> str | None:
    """Seal a JSON object with this machine's secret, which is created if missing.

    Returns:
        The seal in hexadecimal; None if the secret can't be stored.
    """
    key = _key(create=True)
    return None if key is None else _seal(key, content)


def is_sealed(content: Mapping[str, Any], seal: str | None) -> bool:
    """Return whether a seal was made on this machine for exactly this content."""
    if seal is None or (key := _key(create=False)) is None:
        return False
    return hmac.compare_digest(_seal(key, content).encode(), seal.encode(errors="replace"))


def _seal(key: bytes, content: Mapping[str, Any]) -> str:
    return hmac.new(key, canonical_json(content).encode(), "sha256").hexdigest()


def _key(*, create: bool) -> bytes | None:
    path = state_folder() / _KEY_FILE
    try:
        if create and not path.exists():
            _create_key(path)
        key = path.read_bytes()
    except OSError:
        return None
    return key if len(key) == _KEY_BYTES else None


def _create_key(path: Path) -> None:
    """Write the secret atomically; if another process was first, its secret is kept."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=_KEY_FILE)  # readable by owner
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        move_if_free(Path(partial), path)
    finally:
        Path(partial).unlink(missing_ok=True)
