"""Devices that networks are trained on."""

import torch

from dse.errors import ConfigError


def check_device(name: str, *, place: str = "training.device") -> None:
    """Refuse a device that this machine doesn't have.

    Args:
        name: `cpu`, `cuda`, `cuda:N` or `mps`.
        place: where it was named.

    Raises:
        ConfigError: it isn't there.
    """
    kind, _, index = name.partition(":")
    if kind == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        available = (index or "0").isdecimal() and found > int(index or 0)
    else:
        available = kind == "cpu" or (kind == "mps" and torch.backends.mps.is_available())
    if not available:
        raise ConfigError(
            f"{place} = {name!r}: this machine has no such device; "
            + ("use 'cpu'" if place != "training.device" else f"use 'cpu', or --set {place}=cpu")
        )
