"""Devices and threads that networks run on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dse.errors import ConfigError


def check_device(name: str, *, place: str = "training.device") -> None:
    """Check that this machine has a device.

    Args:
        name: `cpu`, `cuda`, `cuda:N` or `mps`.
        place: Name of the setting that holds the value, for the message.

    Raises:
        ConfigError: If the device is not available.
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


@contextmanager
def threads_set(threads: int) -> Iterator[None]:
    """Let torch compute with so many threads, and put its own number back afterwards.

    Args:
        threads: How many; 0 leaves the number as it is.
    """
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
