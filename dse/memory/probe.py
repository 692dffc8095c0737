"""What an operator allocates when it runs alone on a device: results, and workspace beside them."""

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
    """What one operator allocated on a device.

    Attributes:
        workspace_bytes: the most that it held beside its results.
        result_bytes: for each thing it returned, the storage that it made on the device; 0 where it
            made none there.
        strides: of each of these results; None where it made none there.
        lasting_bytes: what a library kept for good for the thread in which it ran.
    """

    workspace_bytes: int
    result_bytes: tuple[int, ...]
    strides: tuple[Stride | None, ...]
    lasting_bytes: int = 0

    def to_json(self) -> list[Any]:
        """Plain values that ``from_json`` reads."""
        return [self.workspace_bytes, self.lasting_bytes, self.result_bytes, self.strides]

    @classmethod
    def from_json(cls, entry: Any) -> "Probed":
        """Read what ``to_json`` wrote.

        Raises:
            ValueError, TypeError: the values don't have that form.
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
        raise ValueError(f"{value!r} is no number of bytes")
    return value


class Probe(Protocol):
    """Runs operators on a device and looks at its allocator."""

    @property
    def block_bytes(self) -> int:
        """What the allocator rounds each allocation up to."""

    def run(self, operators: Sequence[OperatorRun]) -> list[Probed]:
        """Run each operator alone, twice, and look on the second time."""


class CpuProbe:
    """Looks at the CPU allocator's events.

    Attributes:
        block_bytes: 1, since the events state what was asked for.
    """

    block_bytes = 1

    def run(self, operators: Sequence[OperatorRun]) -> list[Probed]:
        """Run each operator alone, twice, and look on the second time."""
        made: list[_Made] = []

        def one(operator: OperatorRun) -> Callable[[], None]:
            def work() -> None:
                with enough_memory_for(str(operator.function)):
                    call = operator.on("cpu")
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
    """Reads the CUDA caching allocator's statistics.

    cuBLAS keeps a workspace for each of its handles, and a handle belongs to a thread: operators of
    the backward pass run in the thread in which they run in a step. The workspaces are dropped
    before each operator, so that each shows what it makes cuBLAS keep, whatever ran before.

    Attributes:
        block_bytes: 512, the allocator's smallest block (c10/cuda/CUDACachingAllocator.cpp).
    """

    block_bytes = 512

    def __init__(self, device: str) -> None:
        self._device = device

    def run(self, operators: Sequence[OperatorRun]) -> list[Probed]:
        """Run each operator alone, twice, and look on the second time."""
        return [self._run(operator) for operator in operators]

    def _run(self, operator: OperatorRun) -> Probed:
        found: list[Probed] = []

        def look() -> None:
            call = operator.on(self._device)
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


_Made = tuple[tuple[int, ...], tuple[Stride | None, ...]]


def _made(operator: OperatorRun, result: Any, device: str) -> _Made:
    """Storage and strides of each thing that an operator made on a device.

    Results elsewhere, such as the state of the CPU's random numbers, aren't the device's.
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
    """Tell results from workspace."""
    sizes, strides = made
    if peak < sum(sizes):
        raise MemoryModelError(
            f"{operator.function} returned {sum(sizes)} bytes and allocated {peak}: what it needs "
            "can't be told apart; use the tensors convention"
        )
    return Probed(peak - sum(sizes), sizes, strides)
