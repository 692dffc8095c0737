"""Cache on disk, for each machine, what operators allocate when they run alone.

There is one JSON file per machine, named by a digest of its description (see ``machine``). It maps
the digests of operators to their allocations. Writers merge with what others have written in the
meantime and replace the file atomically. A file that can't be read is rebuilt.
"""

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from dse.atomic import replaced_whole
from dse.digests import text_digest
from dse.errors import MemoryModelError
from dse.memory.machine import machine_of
from dse.memory.operator_run import OperatorRun, TensorSpec
from dse.memory.probe import Probe, Probed

_LOG = logging.getLogger(__name__)

FORMAT_VERSION = 1
MOST_OPERATORS = 20_000  # per file, about 2 MB; the oldest are dropped first
MOST_FILES = 16  # per folder

_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device, torch.layout)


class UncachedError(MemoryModelError):
    """An operator's allocations aren't cached for this machine."""


class CachedProbe:
    """A probe that only runs operators that are not cached for this machine.

    Attributes:
        block_bytes: Granularity of the device's allocator in bytes.
        ran: Number of operators that have been run, not read from the cache.
    """

    def __init__(
        self,
        probe: Probe,
        *,
        device: str,
        folder: Path,
        renew: bool = False,
        only_cached: bool = False,
    ) -> None:
        """Open the cache of this machine.

        Args:
            probe: Runs the operators that are not cached.
            device: Device of the probe.
            folder: Folder of the cache's files. A folder that can't be written is ignored.
            renew: Whether to run every operator again and replace its entry.
            only_cached: Whether an operator that is not cached is an error.
        """
        self.block_bytes = probe.block_bytes
        self.ran = 0
        self._probe = probe
        self._renew = renew
        self._only_cached = only_cached
        machine = json.dumps(machine_of(device), sort_keys=True)
        self._path = folder / f"{_digest(machine)}.json"

    def run(self, operators: Sequence[OperatorRun]) -> list[Probed]:
        """Return the allocations of each operator, from the cache or by running it alone.

        Raises:
            UncachedError: If one is not cached, and none may run.
        """
        digests = [operator_digest(operator) for operator in operators]
        known = {} if self._renew else _read(self._path)
        missing = [
            position for position, digest in enumerate(digests) if known.get(digest or "") is None
        ]
        found: dict[int, Probed] = {}
        if missing and self._only_cached:
            raise UncachedError(f"{len(missing)} operators are not cached for this machine")
        if missing:
            ran = self._probe.run([operators[position] for position in missing])
            found = dict(zip(missing, ran, strict=True))
            self.ran += len(missing)
        new = {
            digest: probed
            for position, probed in found.items()
            if (digest := digests[position]) is not None
        }
        if new:
            _add(self._path, new)
        return [
            found[position] if position in found else known[digest or ""]
            for position, digest in enumerate(digests)
        ]


def operator_digest(operator: OperatorRun) -> str | None:
    """Digest everything that an operator's allocations depend on. None if an argument can't be."""
    if not _is_plain(operator.arguments):
        return None
    return _digest(repr((str(operator.function), *operator.key[:1], *operator.key[2:])))


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(each) for each in value)
    return isinstance(value, (TensorSpec, torch.memory_format, *_PLAIN))


def _digest(text: str) -> str:
    return text_digest(text, length=24)


def _text(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"))


def _read(path: Path, *, say_damaged: bool = True) -> dict[str, Probed]:
    """Return the operators of a file. Empty if it is missing, damaged or of another version."""
    try:
        stored = json.loads(path.read_text("utf-8"))
        if stored["version"] != FORMAT_VERSION:
            return {}
        operators = {d: Probed.from_json(entry) for d, entry in stored["operators"].items()}
        whole = _digest(_text(stored["operators"])) == stored["digest"]
    except OSError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        operators, whole = {}, False
    if not whole and say_damaged:
        _LOG.warning("%s is damaged: its operators are run again", path)
    return operators if whole else {}


def _add(path: Path, new: dict[str, Probed]) -> None:
    """Add operators to a file, and keep those that others have added in the meantime."""
    others = _read(path, say_damaged=False)
    merged = {digest: found for digest, found in others.items() if digest not in new} | new
    newest = list(merged.items())[-MOST_OPERATORS:]
    operators = {digest: found.to_json() for digest, found in newest}
    text = _text(
        {
            "version": FORMAT_VERSION,
            "digest": _digest(_text(operators)),
            "operators": operators,
        }
    )
    with suppress(OSError):  # the cache only saves time
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_whole(path) as partial:
            partial.write_text(text, "utf-8")
        files = sorted(path.parent.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for file in files[:-MOST_FILES]:
            file.unlink(missing_ok=True)
