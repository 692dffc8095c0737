"""Flags that several commands share, and functions that parse their values."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.commands.complete import devices as complete_devices
from dse.commands.complete import studies as complete_studies
from dse.deploy import DEFAULT_MAX_DROP
from dse.errors import ConfigError
from dse.names import RUNTIMES, use
from dse.units import PeakShare, parse_budget, parse_duration, parse_size

if TYPE_CHECKING:
    from dse.deploy.limits import Limit

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
StudyName = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        autocompletion=complete_studies,
        help="A study file, or a shipped study's name.",
    ),
]
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder, as dse run writes it.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the study, as in training.batch_size=16; can be repeated.",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="DSE_STORAGE",
        help="Optuna storage of the trials; a run remembers it unless it contains a password. "
        "[a file in the run folder]",
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Run the code and open the storage that a run from elsewhere names; not needed for "
        "runs of this machine.",
    ),
]
MaxDrop = Annotated[
    float,
    typer.Option(
        "--max-drop",
        metavar="POINTS",
        help="Largest loss against the unpruned network, in points of the study's metric.",
    ),
]
Reserve = Annotated[
    str,
    typer.Option(
        "--reserve",
        metavar="SIZE",
        help="Part of the RAM to keep free for runtime, code and system.",
    ),
]
Paper = Annotated[
    bool,
    typer.Option(
        "--paper",
        help="Also write paper.zip: pictures as PDF, SVG and PNG with their data, LaTeX tables, a "
        "paragraph on the method and its references.",
    ),
]
DeviceName = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="The RAM that a known device has free, in place of --ram; dse pick --list-devices "
        "lists them.",
        autocompletion=complete_devices,
    ),
]
DevicesFile = Annotated[
    Path | None,
    typer.Option(
        "--devices",
        metavar="FILE",
        help="A TOML file with further devices. [~/.config/dse/devices.toml is always read]",
    ),
]


def size_of(flag: str, text: str) -> int:
    """Parse the size given to a flag, in bytes.

    Raises:
        ConfigError: if it is not a size; the message names the flag.
    """
    try:
        return parse_size(text)
    except ConfigError as error:
        raise ConfigError(f"{flag}: {error}") from error


def ram_of(text: str) -> int | PeakShare:
    """Parse `--ram` of a run: a size, or a share of its unpruned peak such as "25 %".

    Raises:
        ConfigError: if it is neither.
    """
    try:
        return parse_budget(text) if text.strip().endswith("%") else parse_size(text)
    except ConfigError as error:
        raise ConfigError(f"--ram: {error}") from error


def limits_of(
    *, rams: Sequence[str], devices: Sequence[str], file: Path | None, reserve: str
) -> list["Limit"]:
    """Parse `--ram`, `--device`, `--devices` and `--reserve`.

    Args:
        rams: values of --ram.
        devices: values of --device.
        file: value of --devices.
        reserve: value of --reserve.

    Returns:
        One limit for each size, then one for each device.

    Raises:
        ConfigError: if a value is wrong, or a flag has no effect; the message names the flag.
    """
    sizes = [ram_of(text) for text in rams]
    reserve_bytes = size_of("--reserve", reserve)
    if file is not None and not devices:
        raise ConfigError("--devices only has an effect with --device: add --device NAME")
    if reserve_bytes and not (rams or devices):
        raise ConfigError("--reserve only has an effect with --ram: add --ram SIZE or leave it out")
    if reserve_bytes and devices:
        raise ConfigError(
            "--reserve and --device exclude each other: a device's entry holds what is free; "
            "leave out --reserve, or put an entry of your own into a file for --devices"
        )
    from dse.deploy.limits import Limit

    found = [Limit(ram=size, reserve_bytes=reserve_bytes) for size in sizes]
    if devices:
        from dse.deploy.devices import find_device

        found += [Limit.of_device(find_device(name, file=file)) for name in devices]
    return found


def limit_of(
    *, ram: str | None, device: str | None, file: Path | None, reserve: str, max_drop: float
) -> "Limit | None":
    """Parse the RAM that a command takes at most once; see `limits_of`.

    Returns:
        None if neither --ram nor --device is given.

    Raises:
        ConfigError: if a value is wrong, both are given, or a flag has no effect.
    """
    if ram is not None and device is not None:
        raise ConfigError("--ram and --device exclude each other: leave one out")
    found = limits_of(
        rams=[] if ram is None else [ram],
        devices=[] if device is None else [device],
        file=file,
        reserve=reserve,
    )
    if not found and max_drop != DEFAULT_MAX_DROP:
        raise ConfigError(
            "--max-drop only has an effect with --ram or --device: add one or leave it out"
        )
    return found[0] if found else None


def duration_of(flag: str, text: str) -> float:
    """Parse the duration given to a flag, in seconds.

    Raises:
        ConfigError: if it is not a duration, or zero; the message names the flag.
    """
    try:
        return parse_duration(text)
    except ConfigError as error:
        raise ConfigError(f"{flag}: {error}") from error


def check_runtime(runtime: str) -> None:
    """Check the value of --runtime.

    Raises:
        ConfigError: if it is unknown.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"--runtime {runtime!r} is not known: {use(RUNTIMES, given=runtime)}")
