"""Names and options that build a network on another machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dse.names import library_of
from dse.networks.transformers_library import described_by


def portable(
    name: str, options: Mapping[str, Any], *, folder: Path | None
) -> tuple[str, dict[str, Any]]:
    """Return a name and options that don't depend on folders of this machine.

    Args:
        name: name of the network.
        options: its options.
        folder: folder that a relative path starts at.

    Raises:
        NetworkError: If the configuration of a Hugging Face network can't be read.
    """
    library = library_of(name)
    if library not in ("hf", "export"):
        return name, dict(options)
    place = Path(name.partition(":")[2])
    short = f"{library}:{place.name}" if place.is_absolute() else name
    if library == "export":
        return short, dict(options)
    return short, described_by(name, options, folder=folder)
