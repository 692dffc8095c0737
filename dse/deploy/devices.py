"""Devices by name: their RAM, how much of it a training step can hold, and where this is from."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from dse.config.base import Frozen, KeyedError
from dse.config.fields import Size
from dse.config.files import explain, read_toml
from dse.errors import ConfigError
from dse.names import nearest
from dse.textfiles import exists

CONFIG_VARIABLE = "DSE_CONFIG"
FILE_NAME = "devices.toml"
_PACKAGED = Path(__file__).parents[1] / FILE_NAME
_MOST_NAMED = 5  # largest number of names in an error message

Basis = Literal["manufacturer", "measured", "estimate"]
Runtime = Literal["pytorch", "pytorch-cuda", "microcontroller"]
Text = Annotated[str, Field(min_length=1)]
DeviceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$")]


class Figure(Frozen):
    """One size of a device.

    Attributes:
        size: bytes.
        basis: who or what says so.
        source: the document, or how it was measured or estimated.
    """

    size: Size
    basis: Basis
    source: Text


class Device(Frozen):
    """A device to train on.

    Attributes:
        name: what `--device` takes.
        title: name for readers.
        runtime: what runs a training step on it.
        ram: the whole RAM.
        free: what a training step can hold.
    """

    name: DeviceName
    title: Text
    runtime: Runtime
    ram: Figure
    free: Figure

    @model_validator(mode="after")
    def _free_is_part_of_ram(self) -> Self:
        if self.free.size > self.ram.size:
            raise KeyedError("free.size", "must be at most ram.size")
        return self

    @property
    def reserve_bytes(self) -> int:
        """Bytes that system, runtime and code take."""
        return self.ram.size - self.free.size

    def to_json(self) -> dict[str, Any]:
        """Return the object that `dse pick --list-devices --json` prints."""
        return {
            "name": self.name,
            "title": self.title,
            "runtime": self.runtime,
            **{
                f"{key}_{part}": value
                for key, figure in (("ram", self.ram), ("free", self.free))
                for part, value in (
                    ("bytes", figure.size),
                    ("basis", figure.basis),
                    ("source", figure.source),
                )
            },
        }


def user_file() -> Path:
    """Return the user's file of devices: in `$DSE_CONFIG`, or `~/.config/dse`."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named).expanduser() / FILE_NAME
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "dse" / FILE_NAME


def known_devices(file: Path | None = None) -> dict[str, Device]:
    """Read the devices of the package, of the user's file and of one more.

    Args:
        file: a file whose entries replace others of the same name.

    Returns:
        Devices by name, in the order of the files.

    Raises:
        ConfigError: if a file can't be read or an entry is wrong; names file, entry, key and fix.
    """
    found = _read(_PACKAGED)
    own = user_file()
    if exists(own):
        found |= _read(own)
    return found if file is None else found | _read(file)


def find_device(name: str, *, file: Path | None = None) -> Device:
    """Find a device; case doesn't matter, and spaces or underscores stand for hyphens.

    Raises:
        ConfigError: if there is none of this name, or a file is wrong (see `known_devices`).
    """
    known = known_devices(file)
    wanted = "-".join(name.casefold().replace("_", " ").split())
    if wanted in known:
        return known[wanted]
    similar = [one for one in known if wanted and one.startswith(wanted)][:_MOST_NAMED]
    near = similar or [one for one in [nearest(wanted, known)] if one]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ConfigError(
        f"--device {name!r} is not known: {hint}dse pick --list-devices lists all; add yours to "
        f"{user_file()} or a file for --devices"
    )


def _read(path: Path) -> dict[str, Device]:
    return {name: _device(name, entry, path) for name, entry in read_toml(path).items()}


def _device(name: str, entry: object, path: Path) -> Device:
    if not isinstance(entry, dict):
        raise ConfigError(
            f"{path}: {name} is not a table: write each device as [name] with title, runtime, ram "
            "and free below it"
        )
    try:
        return Device.model_validate({"title": name, **entry, "name": name})
    except ValidationError as error:
        wrong_name = any(one["loc"] == ("name",) for one in error.errors())
        if wrong_name:
            raise ConfigError(
                f"{path}: [{name}] is not a name for a device: use lower-case letters, digits, "
                "hyphens, dots and plus signs"
            ) from error
        raise explain(error, model=Device, source=f"{path}: [{name}]") from error
