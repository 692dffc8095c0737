"""Results that a storage didn't take, kept in the run folder until it does."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna

from dse.digests import json_digest
from dse.errors import RunError
from dse.search.whole_files import write_whole
from dse.trust.files import read_regular

KEPT_FOLDER = "not_stored"
_MOST_BYTES = 2**20


class Kept:
    """The results of a run that its storage lacks: one file each, named by a digest of its key."""

    def __init__(self, folder: Path) -> None:
        """Find them.

        Args:
            folder: the run folder.
        """
        self._folder = folder / KEPT_FOLDER

    def keep(self, key: str, value: Mapping[str, Any]) -> None:
        """Write a result to the run folder, because the storage can't be reached.

        Args:
            key: study attribute that would hold it.
            value: the result, a JSON object.

        Raises:
            RunError: if it can't be written.
        """
        with suppress(OSError):  # reported when the file is written
            self._folder.mkdir(exist_ok=True)
        text = json.dumps({"key": key, "value": dict(value)})
        write_whole(self._folder / f"{json_digest(key)}.json", f"{text}\n")

    def store(self, archive: optuna.Study) -> int:
        """Store what was kept, unless the storage has it by now, and remove the files.

        Args:
            archive: the Optuna study.

        Returns:
            Number of results.

        Raises:
            RunError: if a file is damaged.
        """
        paths = sorted(self._folder.glob("*.json"))
        written = archive.user_attrs if paths else {}
        for path in paths:
            key, value = _read(path)
            if key not in written:
                archive.set_user_attr(key, value)
            path.unlink()
        if paths:
            with suppress(OSError):  # not empty: files of somebody else
                self._folder.rmdir()
        return len(paths)


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        content = json.loads(read_regular(path, most_bytes=_MOST_BYTES))
        key, value = content["key"], content["value"]
        if isinstance(key, str) and isinstance(value, dict):
            return key, value
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    raise _damaged(path)


def _damaged(path: Path) -> RunError:
    return RunError(f"{path} is damaged: remove it, and its result is trained again")
