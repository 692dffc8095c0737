"""What a memory model is computed from, and the file that holds it: plain arrays and JSON."""

import json
import zipfile
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dse.atomic import replaced_whole
from dse.digests import parts_digest
from dse.errors import MemoryModelError
from dse.memory.channel_units import ModelGroup
from dse.memory.compile import Method
from dse.memory.compiled import CompiledTape
from dse.memory.site import Site
from dse.step.settings import StepSettings

FORMAT_VERSION = 5
_MOST_BYTES = 2**30  # limit of a file's unpacked content
_ARRAYS = tuple(field.name for field in fields(CompiledTape) if field.name != "sites")


@dataclass(frozen=True, kw_only=True)
class ModelContent:
    """What a memory model is computed from.

    Attributes:
        tape: Compiled arrays that the predictions are computed from.
        groups: Channel groups.
        settings: Settings of the step.
        method: How the channel groups were identified.
    """

    tape: CompiledTape
    groups: tuple[ModelGroup, ...]
    settings: StepSettings
    method: Method

    @cached_property
    def digest(self) -> str:
        """Digest of the content."""
        header = json.dumps(self._header(), sort_keys=True).encode()
        arrays = [getattr(self.tape, name).tobytes() for name in _ARRAYS]
        return parts_digest([header, *arrays], length=16)

    def write(self, path: Path) -> None:
        """Write the content to a file, atomically."""
        header = {**self._header(), "digest": self.digest}
        with replaced_whole(path) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                header=np.array(json.dumps(header)),
                **{name: getattr(self.tape, name) for name in _ARRAYS},
            )

    @classmethod
    def read(cls, path: Path) -> "ModelContent":
        """Read what ``write`` has written.

        Raises:
            MemoryModelError: If the file is missing, damaged or of another version.
        """
        try:
            return cls._read(path)
        except FileNotFoundError as error:
            raise MemoryModelError(f"no memory model at {path}") from error
        except MemoryModelError:
            raise
        except Exception as error:  # damaged content can cause any exception
            raise MemoryModelError(
                f"{path} is damaged: delete it and run the study again"
            ) from error

    @classmethod
    def _read(cls, path: Path) -> "ModelContent":
        """Read the content, and let unexpected errors pass through.

        Raises:
            MemoryModelError: If the file has another version.
            ValueError: If the content is too large, or its digest does not match.
        """
        with path.open("rb") as file:
            with zipfile.ZipFile(file) as archive:
                if sum(one.file_size for one in archive.infolist()) > _MOST_BYTES:
                    raise ValueError("too large")
            file.seek(0)
            with np.load(file, allow_pickle=False) as stored:
                header = json.loads(str(stored["header"]))
                if header["version"] != FORMAT_VERSION:  # other versions have other arrays
                    raise MemoryModelError(
                        f"{path} has version {header['version']}, this release reads "
                        f"{FORMAT_VERSION}: delete it and run the study again"
                    )
                arrays = {name: stored[name] for name in _ARRAYS}
        content = cls(
            tape=CompiledTape(sites=tuple(Site(*site) for site in header["sites"]), **arrays),
            groups=tuple(ModelGroup(**group) for group in header["groups"]),
            settings=StepSettings(**header["settings"]),
            method=header["method"],
        )
        if content.digest != header["digest"]:
            raise ValueError("another digest")
        return content

    def _header(self) -> dict[str, Any]:
        return {
            "version": FORMAT_VERSION,
            "groups": [asdict(group) for group in self.groups],
            "settings": _settings(self.settings),
            "method": self.method,
            "sites": [[site.phase, site.operator, site.module] for site in self.tape.sites],
        }


def _settings(settings: StepSettings) -> dict[str, Any]:
    """Return settings without later ones at their defaults, so that digests of files stay."""
    found = asdict(settings)
    if not settings.optimizer_in_backward:
        del found["optimizer_in_backward"]
    return found
