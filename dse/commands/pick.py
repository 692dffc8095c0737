"""`dse pick`: choose the best candidate for a device."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.commands import console
from dse.commands.complete import devices as complete_devices
from dse.commands.options import (
    DevicesFile,
    Json,
    MaxDrop,
    Reserve,
    Storage,
    Trust,
    check_runtime,
    limits_of,
)
from dse.deploy import DEFAULT_MAX_DROP
from dse.errors import ConfigError, InfeasibleError

if TYPE_CHECKING:
    from dse.deploy.choice import Pick

SCHEMA_VERSION = 1


def pick(
    context: typer.Context,
    folder: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A run folder, as dse run writes it.")
    ] = None,
    *,
    ram: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SIZE",
            help="RAM of the device, such as 64MiB or 1.5GB, or a share of what the unpruned "
            "network needs, such as 25%; can be repeated.",
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="The RAM that a known device has free; can be repeated.",
            autocompletion=complete_devices,
        ),
    ] = None,
    devices: DevicesFile = None,
    list_devices: Annotated[
        bool, typer.Option("--list-devices", help="List the known devices, and do nothing else.")
    ] = False,
    knee: Annotated[
        bool,
        typer.Option(
            "--knee",
            help="Choose the knee of the front of what fits, beyond which each point of accuracy "
            "costs more memory; needs no RAM size.",
        ),
    ] = False,
    runtime: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What trains on the device: pytorch, or executorch, whose arena is compared with "
            "the RAM then.",
        ),
    ] = "pytorch",
    speed: Annotated[
        bool,
        typer.Option(
            "--speed/--no-speed",
            help="Time steps of the choice and of the unpruned network in turns, for seconds.",
        ),
    ] = True,
    max_drop: MaxDrop = DEFAULT_MAX_DROP,
    reserve: Reserve = "0",
    storage: Storage = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Choose the best candidate for a RAM size or a device.

    That is the best one by the study's metric that fits and loses at most --max-drop against the
    unpruned network; if several seeds can't tell others from it, the smallest of them. One real
    training step is measured; if that holds too much, the next candidate is tried. Steps and
    forward passes of the choice and of the unpruned network are timed in turns. Several sizes or
    devices give a table. The exit status is 1 if nothing fits one of them; the message then
    names the smallest size that would.

    \b
    Examples:
      dse pick runs/digits --ram 48MiB
      dse pick runs/digits --ram 64MB --reserve 8MB --max-drop 1 --json
      dse pick runs/digits --ram 25% --ram 50% --ram 100%
      dse pick runs/digits --device raspberry-pi-zero-2-w
      dse pick runs/digits --knee
      dse pick runs/digits --ram 48MiB --runtime executorch
      dse pick --list-devices
    """  # noqa: D301  # \b keeps the lines after it as they are
    if list_devices:
        if folder is not None or ram or device or knee:
            raise ConfigError(
                "--list-devices only lists: leave out RUN, --ram, --device and --knee"
            )
        from dse.commands.device_list import list_devices as show_devices

        show_devices(devices, as_json=as_json)
        return
    if folder is None:
        raise typer.BadParameter("it is missing", ctx=context, param_hint="RUN")
    check_runtime(runtime)
    limits = limits_of(rams=ram or (), devices=device or (), file=devices, reserve=reserve)
    if not limits and not knee:
        raise typer.BadParameter(
            "give at least one, or --device NAME or --knee", ctx=context, param_hint="--ram"
        )

    from dse.deploy.pick import picks_for, with_speed
    from dse.search.load import load_run

    with console.stdout_reserved():
        records = load_run(folder, storage=storage, trust=trust)
        choices = picks_for(
            records, limits or [None], max_drop=max_drop, knee=knee, runtime=runtime
        )
        if speed:
            choices = with_speed(records, choices)
    _print(choices, as_json=as_json)


def _print(choices: "Sequence[Pick]", *, as_json: bool) -> None:
    """Print one choice in full, or several as a table.

    Raises:
        InfeasibleError: if nothing fits one of the sizes.
    """
    from dse.commands.pick_show import note_lines, refusal_of, show, show_table

    several = len(choices) > 1
    if as_json:
        answers = [choice.to_json() for choice in choices]
        console.print_json({"version": SCHEMA_VERSION, "picks": answers} if several else answers[0])
    elif several:
        show_table(choices)
    for line in note_lines(choices):
        console.note(line)
    if (refusal := refusal_of(choices)) is not None:
        raise InfeasibleError(refusal)
    if not (as_json or several):
        show(choices[0])
