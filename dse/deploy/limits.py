"""The RAM to choose for: a size, a share of the unpruned network's peak, or a device."""

from collections.abc import Iterator
from dataclasses import dataclass

from dse.deploy.devices import Device
from dse.results.records import RunRecords
from dse.units import PeakShare, format_size


@dataclass(frozen=True, kw_only=True)
class Limit:
    """RAM, and what of it is reserved.

    Attributes:
        ram: bytes, or a share of the unpruned network's peak.
        reserve_bytes: part of it that is reserved for runtime, code and system.
        device: the device that both are of; None for a size.
    """

    ram: int | PeakShare
    reserve_bytes: int = 0
    device: Device | None = None

    @classmethod
    def of_device(cls, device: Device) -> "Limit":
        """Return what a device leaves a training step."""
        return cls(ram=device.ram.size, reserve_bytes=device.reserve_bytes, device=device)

    def ram_bytes(self, *, unpruned_peak_bytes: int) -> int:
        """Return the RAM in bytes."""
        return self.ram.of(unpruned_peak_bytes) if isinstance(self.ram, PeakShare) else self.ram


def device_notes(device: Device, records: RunRecords, *, runtime: str = "pytorch") -> Iterator[str]:
    """Yield lines on how far a device's figures, and the run's figures for it, can be trusted.

    Args:
        device: the device.
        records: records of the run.
        runtime: what the sizes are of: a key of `dse.deploy.choice.HELD`.
    """
    free = device.free
    if free.basis != "measured":
        what = "an estimate" if free.basis == "estimate" else "the manufacturer's figure"
        yield (
            f"{device.name}: {format_size(free.size)} free of {format_size(device.ram.size)} is "
            f"{what} ({free.source})"
        )
    trained_on = records.study.training.device
    if runtime == "pytorch" and (device.runtime == "pytorch-cuda") != trained_on.startswith("cuda"):
        yield (
            f"{device.name}: it trains with {device.runtime}, but the run's figures are for "
            f"{trained_on}: other kernels may hold more or less"
        )
