"""`dse pick --list-devices`: the known devices and where their figures are from."""

from pathlib import Path

from dse.commands import console
from dse.deploy.devices import Figure, known_devices, user_file
from dse.units import format_size

SCHEMA_VERSION = 1
_ESTIMATE = "~"


def list_devices(file: Path | None, *, as_json: bool) -> None:
    """Print all known devices.

    Args:
        file: a file with further devices.
        as_json: whether to print one JSON object, with the sources of all figures.

    Raises:
        ConfigError: if a file of devices is wrong.
    """
    known = known_devices(file).values()
    if as_json:
        devices = [device.to_json() for device in known]
        console.print_json({"version": SCHEMA_VERSION, "devices": devices})
        return
    rows = [
        (device.name, device.runtime, _size(device.ram), _size(device.free)) for device in known
    ]
    console.show_table(("device", "runtime", "RAM", "free for a step"), rows, left=2)
    console.say(
        f"\n{_ESTIMATE} marks estimates; other figures are the manufacturer's or measured. Where "
        "each is from: dse pick --list-devices --json. Add devices of your own to "
        f"{user_file()}, or to a file that --devices names."
    )


def _size(figure: Figure) -> str:
    mark = f"{_ESTIMATE} " if figure.basis == "estimate" else ""
    return f"{mark}{format_size(figure.size)}"
