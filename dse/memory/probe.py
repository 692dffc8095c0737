"""Measure what an operator allocates when it runs alone on a device: results and workspace."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch.utils._pytree import tree_leaves

from dse.errors import MemoryModelError
from dse.memory.measure import enough_memory_for, marked, most_allocated_each
from dse.memory.operator_run import OperatorRun, Stride
from dse.networks.devices import check_device


@dataclass(frozen=True)
class Probed:
    """Allocations of one operator on a device.

    Attributes:
        workspace_bytes: Largest number of bytes that it held in addition to its results.
        result_bytes: For each returned value, the size of the storage that it created on the
            device, or 0 if it created none there.
        strides: Strides of each of these results. None if it created none there.
        lasting_bytes: Bytes that a library keeps permanently for the thread that ran the operator.
    """

    workspace_bytes: int
    result_bytes: tuple[int, ...]
    strides: tuple[Stride | None, ...]
    lasting_bytes: int = 0

    def to_json(self) -> list[Any]:
        """Return plain values that ``from_json`` reads."""
        return [self.workspace_bytes, self.lasting_bytes, self.result_bytes, self.strides]

    @classmethod
    def from_json(cls, entry: Any) -> "Probed":
        """Read the values that ``to_json`` returned.

        Raises:
            ValueError, TypeError: If the values do not have that form.
        """
        workspace, lasting, sizes, strides = entry
        return cls(
            workspace_bytes=_whole(workspace),
            result_bytes=tuple(_whole(size) for size in sizes),
            strides=tuple(
                None if stride is None else tuple(_whole(step) for step in stride)
                for stride in strides
            ),
            lasting_bytes=_whole(lasting),
        )


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a number of bytes")
    return value


class Probe(Protocol):
    """Runs operators on a device and observes its allocator."""

    @property
    def block_bytes(self) -> int:
        """Granularity of the allocator: each allocation is rounded up to a multiple of it."""

    def run(self, operators: Sequence[OperatorRun]) -> list[Probed]:
        """Run each operator alone, twice, and measure the second run."""


class CpuProbe:
    """Measures with the CPU allocator's events.

    Attributes:
        block_bytes: 1, because the events report the requested bytes.
    """

    block_bytes = 1

    def run(self, operators: Sequence[OperatorRun]) -> list[Probed]:
        """Run each operator alone, twice, and measure the second run."""
        made: list[_Made] = []

        def one(operator: OperatorRun) -> Callable[[], None]:
            def work() -> None:
                with enough_memory_for(str(operator.function)):
                    call = operator.on("cpu")
                    # The first run pays for what libraries create once, such as cached primitives.
                    call()
                    with marked():
                        result = call()
                made.append(_made(operator, result, "cpu"))

            return work

        peaks = most_allocated_each([one(operator) for operator in operators])
        return [
            _without_results(operator, own, peak)
            for operator, own, peak in zip(operators, made, peaks, strict=True)
        ]


class CudaProbe:
    """Measures with the CUDA caching allocator's statistics.

    cuBLAS keeps a workspace for each of its handles, and each handle belongs to a thread. Operators
    of the backward pass therefore run in the same thread as in a step. The workspaces are dropped
    before each operator, so that its own is measured whatever ran before.

    Attributes:
        block_bytes: 512, the allocator's smallest block (c10/cuda/CUDACachingAllocator.cpp).
    """

    block_bytes = 512

    def __init__(self, device: str) -> None:
        self._device = device

    def run(self, operators: Sequence[OperatorRun]) -> list[Probed]:
        """Run each operator alone, twice, and measure the second run."""
        return [self._run(operator) for operator in operators]

    def _run(self, operator: OperatorRun) -> Probed:
        found: list[Probed] = []

        def look() -> None:
            call = operator.on(self._device)
            # The first call shows what a library keeps, the second call what the operator needs.
            without = self._now("current")
            call()
            torch.cuda.synchronize(self._device)
            before = self._now("current")
            torch.cuda.reset_peak_memory_stats(self._device)
            made = _made(operator, call(), self._device)
            probed = _without_results(operator, made, self._now("peak") - before)
            found.append(replace(probed, lasting_bytes=max(0, before - without)))

        torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001  # no public name
        with enough_memory_for(str(operator.function)), torch.no_grad():
            if operator.phase == "backward":
                in_backward(look, self._device)
            else:
                look()
        return found[0]

    def _now(self, when: str) -> int:
        # Requested bytes: the blocks that the cache hands out may be larger.
        statistics = torch.cuda.memory_stats(self._device)
        return int(statistics.get(f"requested_bytes.all.{when}", 0))


def probe_for(device: str) -> Probe:
    """Return the probe for a device.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ConfigError: If this machine does not have the device.
        MemoryModelError: If there is no probe for this type of device.
    """
    check_device(device, place="device")
    kind = torch.device(device).type
    if kind == "cpu":
        return CpuProbe()
    if kind == "cuda":
        return CudaProbe(device)
    raise MemoryModelError(
        f"what operators allocate can be measured on cpu and cuda, not on {kind}: use the tensors "
        "convention"
    )


def in_backward(work: Callable[[], None], device: str) -> None:
    """Run a function in the thread that runs a device's backward passes."""
    start = torch.zeros((), device=device, requires_grad=True)
    with torch.enable_grad():
        _Working.apply(start, work).backward()


class _Working(torch.autograd.Function):
    """Runs a function when its gradient is computed."""

    @staticmethod
    def forward(ctx: Any, start: torch.Tensor, work: Callable[[], None]) -> torch.Tensor:
        ctx.work = work
        return start.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        ctx.work()
        return gradients[0], None


_Made = tuple[tuple[int, ...], tuple[Stride | None, ...]]


def _made(operator: OperatorRun, result: Any, device: str) -> _Made:
    """Return the storage sizes and strides of the results that an operator created on a device.

    Results on other devices, such as the state of the CPU's random generator, do not count.
    """
    kind = torch.device(device).type
    own = [
        leaf
        if isinstance(leaf, torch.Tensor) and buffer is not None and leaf.device.type == kind
        else None
        for leaf, buffer in zip(tree_leaves(result), operator.results, strict=True)
    ]
    return (
        tuple(0 if leaf is None else leaf.untyped_storage().nbytes() for leaf in own),
        tuple(None if leaf is None else leaf.stride() for leaf in own),
    )


def _without_results(operator: OperatorRun, made: _Made, peak: int) -> Probed:
    """Split the peak of an operator into its results and its workspace."""
    sizes, strides = made
    if peak < sum(sizes):
        raise MemoryModelError(
            f"{operator.function} returned {sum(sizes)} bytes and allocated {peak}: its workspace "
            "can't be determined; use the tensors convention"
        )
    return Probed(peak - sum(sizes), sizes, strides)
