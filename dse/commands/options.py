"""Flags that several commands share, and functions that parse their values."""

from pathlib import Path
from typing import Annotated

import typer

from dse.deploy import DEFAULT_MAX_DROP
from dse.errors import ConfigError
from dse.units import PeakShare, parse_budget, parse_duration, parse_size

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
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


def ram_bytes_of(ram: int | PeakShare, *, unpruned_peak_bytes: int) -> int:
    """Return the bytes of `--ram`, which may be a share of the unpruned network's peak."""
    return ram.of(unpruned_peak_bytes) if isinstance(ram, PeakShare) else ram


def duration_of(flag: str, text: str) -> float:
    """Parse the duration given to a flag, in seconds.

    Raises:
        ConfigError: if it is not a duration, or zero; the message names the flag.
    """
    try:
        return parse_duration(text)
    except ConfigError as error:
        raise ConfigError(f"{flag}: {error}") from error


def check_choice(*, ram: object, reserve_bytes: int, max_drop: float) -> None:
    """Refuse flags that only affect the choice for a RAM size if none is given.

    Raises:
        ConfigError: if a flag would have no effect; the message names it.
    """
    if ram is not None:
        return
    for flag, given in (
        ("--reserve", reserve_bytes != 0),
        ("--max-drop", max_drop != DEFAULT_MAX_DROP),
    ):
        if given:
            raise ConfigError(
                f"{flag} only has an effect with --ram: add --ram SIZE or leave it out"
            )
