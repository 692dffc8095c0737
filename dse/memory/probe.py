"""What an operator allocates when it runs alone on a device: results, and workspace beside them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.utils._pytree import tree_leaves

from dse.errors import MemoryModelError
from dse.memory.measure import enough_memory_for, marked, most_allocated_each
from dse.memory.operator_run import OperatorRun
from dse.networks.devices import check_device


@dataclass(frozen=True)
class Probed:
    """What one operator allocated.

    Attributes:
        workspace_bytes: the most that it held beside its results.
        result_bytes: for each thing it returned, the storage that it made; 0 where it made none.
    """

    workspace_bytes: int
    result_bytes: tuple[int, ...]


class Probe(Protocol):
    """Runs operators on a device and looks at its allocator."""

    @property
    def block_bytes(self) -> int:
        """What the allocator rounds each allocation up to."""

    def run(self, operators: Sequence[OperatorRun]) -> list[Probed]:
        """Run each operator alone, twice, and look on the second time."""

    def lasting_bytes(self) -> int:
        """What libraries have allocated for good since the probe was made."""


class CpuProbe:
    """Looks at the CPU allocator's events.

    Attributes:
        block_bytes: 1, since the events state what was asked for.
    """

    block_bytes = 1

    def run(self, operators: Sequence[OperatorRun]) -> list[Probed]:
        """Run each operator alone, twice, and look on the second time."""
        sizes: list[tuple[int, ...]] = []

        def one(operator: OperatorRun) -> Callable[[], None]:
            def work() -> None:
                with enough_memory_for(str(operator.function)):
                    call = operator.on("cpu")
                    call()
                    with marked():
                        result = call()
                sizes.append(_result_bytes(operator, result))

            return work

        peaks = most_allocated_each([one(operator) for operator in operators])
        return [
            _without_results(operator, own, peak)
            for operator, own, peak in zip(operators, sizes, peaks, strict=True)
        ]

    def lasting_bytes(self) -> int:
        """Libraries don't book memory for good from PyTorch's CPU allocator."""
        return 0


class CudaProbe:
    """Reads the CUDA caching allocator's statistics.

    cuBLAS keeps a workspace for each of its handles, and a handle belongs to a thread: operators of
    the backward pass run in the thread in which they run in a step.

    Attributes:
        block_bytes: 512, the allocator's smallest block (c10/cuda/CUDACachingAllocator.cpp).
    """

    block_bytes = 512

    def __init__(self, device: str) -> None:
        self._device = device
        torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001  # no public name
        self._before = self._now("current")

    def run(self, operators: Sequence[OperatorRun]) -> list[Probed]:
        """Run each operator alone, twice, and look on the second time."""
        return [self._run(operator) for operator in operators]

    def lasting_bytes(self) -> int:
        """The workspaces of cuBLAS."""
        torch.cuda.synchronize(self._device)
        return self._now("current") - self._before

    def _run(self, operator: OperatorRun) -> Probed:
        found: list[Probed] = []

        def look() -> None:
            call = operator.on(self._device)
            call()
            torch.cuda.reset_peak_memory_stats(self._device)
            before = self._now("current")
            own = _result_bytes(operator, call())
            found.append(_without_results(operator, own, self._now("peak") - before))

        with enough_memory_for(str(operator.function)), torch.no_grad():
            if operator.phase == "backward":
                in_backward(look, self._device)
            else:
                look()
        return found[0]

    def _now(self, when: str) -> int:
        # What was asked for: blocks of the cache may be larger than what is put into them.
        statistics = torch.cuda.memory_stats(self._device)
        return int(statistics.get(f"requested_bytes.all.{when}", 0))


def probe_for(device: str) -> Probe:
    """The probe of a device, which must be there.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ConfigError: this machine has no such device.
        MemoryModelError: no probe is known for it.
    """
    check_device(device, place="device")
    kind = torch.device(device).type
    if kind == "cpu":
        return CpuProbe()
    if kind == "cuda":
        return CudaProbe(device)
    raise MemoryModelError(
        f"what operators allocate can be seen on cpu and cuda, not on {kind}: use the tensors "
        "convention"
    )


def in_backward(work: Callable[[], None], device: str) -> None:
    """Do work in the thread in which a device's backward passes run."""
    start = torch.zeros((), device=device, requires_grad=True)
    with torch.enable_grad():
        _Working.apply(start, work).backward()


class _Working(torch.autograd.Function):
    """Does some work in place of a gradient's computation."""

    @staticmethod
    def forward(ctx: Any, start: torch.Tensor, work: Callable[[], None]) -> torch.Tensor:
        ctx.work = work
        return start.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        ctx.work()
        return gradients[0], None


def _result_bytes(operator: OperatorRun, result: Any) -> tuple[int, ...]:
    """Storage of each thing that an operator made; 0 where it made none."""
    return tuple(
        leaf.untyped_storage().nbytes()
        if isinstance(leaf, torch.Tensor) and buffer is not None
        else 0
        for leaf, buffer in zip(tree_leaves(result), operator.results, strict=True)
    )


def _without_results(operator: OperatorRun, own: tuple[int, ...], peak: int) -> Probed:
    """Tell results from workspace."""
    if peak < sum(own):
        raise MemoryModelError(
            f"{operator.function} returned {sum(own)} bytes and allocated {peak}: what it needs "
            "can't be told; use the tensors convention"
        )
    return Probed(peak - sum(own), own)
