"""What each choice of each block costs in memory and time, found by running it without values.

A block runs alone on the meta device, forward and backward, between two probes: one hands it its
input and takes the input's gradient, the other takes its output and hands it the output's gradient.
What the block holds in between, and the most that lives at any moment, are then exact.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dse.engines.meter import Known, Meter
from dse.memory.trace import no_garbage_collection
from dse.step.in_backward import updating_in_backward

Block = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Cost:
    """What one choice of one block costs.

    Attributes:
        forward_bytes: The most that lives during its forward pass, its input included.
        held_bytes: What it holds until its backward pass, without its input and output.
        holds_input, holds_output: Whether it holds these, too.
        backward_bytes: The most that lives during its backward pass: what it held, its output's
            gradient and the gradients of its own parameters included.
        backward_bytes_kept: The same if something else keeps its input alive.
        seconds: Estimated time of both passes.
    """

    forward_bytes: int
    held_bytes: int
    holds_input: bool
    holds_output: bool
    backward_bytes: int
    backward_bytes_kept: int
    seconds: float


@dataclass(frozen=True)
class Border:
    """The value between two blocks.

    Attributes:
        shape, stride, dtype: Its layout.
        needs_grad: Whether its gradient is computed.
        resident: Whether it lives throughout the step anyhow, as the images do.
    """

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    needs_grad: bool
    resident: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of its storage that the plan decides on."""
        if self.resident:
            return 0
        reach = sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True)) + 1
        return reach * torch.empty((), dtype=self.dtype).element_size()

    def make(self) -> Tensor:
        """Return a tensor without values."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")


def border_of(value: Tensor) -> Border:
    """Describe a value."""
    return Border(value.shape, value.stride(), value.dtype, value.requires_grad)


def measure_block(
    block: Block,
    entry: Border,
    *,
    parameters: list[Tensor],
    keeps_gradients: bool,
    input_may_last: bool,
    known: Known,
    optimizer: Optimizer | None = None,
) -> tuple[Cost, Border]:
    """Run a block alone and return what it costs, and the value that it leaves.

    Args:
        block: Runs the block on a tensor without values.
        entry: The value that it reads.
        parameters: Its parameters. Their gradients are dropped.
        keeps_gradients: Whether gradients live throughout the step anyhow.
        input_may_last: Whether the block before may hold the input, too.
        known: What operators make, found so far.
        optimizer: Updates the parameters in the backward pass, if given.
    """
    _without(parameters, keeps_gradients)
    updating = nullcontext() if optimizer is None else updating_in_backward(optimizer)
    with no_garbage_collection(), updating:
        first, leaves = _measure(block, entry, Meter(known), keeps_input=False)
        second = first
        if input_may_last and entry.needs_grad:
            _without(parameters, keeps_gradients)
            if optimizer is not None:
                optimizer.step()  # which ends the first run
            second, _ = _measure(block, entry, Meter(known), keeps_input=True)
    for parameter in parameters:
        parameter.grad = None
    return (
        Cost(
            forward_bytes=first.forward,
            held_bytes=first.held,
            holds_input=first.holds_input,
            holds_output=first.holds_output,
            backward_bytes=first.backward,
            backward_bytes_kept=second.backward,
            seconds=first.seconds,
        ),
        leaves,
    )


def _without(parameters: list[Tensor], keeps_gradients: bool) -> None:  # noqa: FBT001
    """Drop gradients, or make those that live throughout the step."""
    for parameter in parameters:
        lasts = keeps_gradients and parameter.requires_grad
        parameter.grad = torch.zeros_like(parameter) if lasts else None


@dataclass(frozen=True)
class _Run:
    forward: int
    held: int
    holds_input: bool
    holds_output: bool
    backward: int
    seconds: float


def _measure(
    block: Block, entry: Border, meter: Meter, *, keeps_input: bool
) -> tuple[_Run, Border]:
    seen: dict[str, int] = {}
    counted = 0 if entry.resident else 1
    with torch.enable_grad():
        outer = entry.make() if entry.resident else None
        with meter:
            if outer is not None:
                value = outer
            elif entry.needs_grad:
                seed = torch.empty(0, device="meta", requires_grad=True)
                value = _First.apply(seed, entry, meter, seen)
            else:
                value = entry.make()
            size = meter.bytes
            key = meter.alive(value)
            meter.reset()
            output = block(value)
            forward, seconds = meter.peak_bytes, meter.seconds
            leaves = border_of(output)
            kept = value.detach() if keeps_input else None
            own = meter.alive(output)
            out_bytes = output.untyped_storage().nbytes() if own != key else 0
            end = _Last.apply(output, meter, seen) if leaves.needs_grad else None
            del value, output
            holds_input = counted == 1 and kept is None and meter.lives(key)
            holds_output = meter.lives(own) and own != key
            held = meter.bytes - holds_output * out_bytes
            held -= size if (holds_input or kept is not None) else 0
            if end is None:
                return _Run(forward, held, holds_input, holds_output, 0, seconds), leaves
            end.backward(end.detach())
            peak = seen.get("peak", meter.peak_bytes)
            seconds += seen.get("nanoseconds", int(meter.seconds * 1e9)) / 1e9
            del kept
    return _Run(forward, held, holds_input, holds_output, peak, seconds), leaves


class _First(torch.autograd.Function):
    """Hands a block its input, and notes when the gradient of the input has come."""

    @staticmethod
    def forward(
        ctx: Any, seed: Tensor, entry: Border, meter: Meter, seen: dict[str, int]
    ) -> Tensor:
        # A leaf of the input's size would keep the input alive.
        ctx.meter, ctx.seen = meter, seen
        return entry.make()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        ctx.seen["peak"] = ctx.meter.peak_bytes
        ctx.seen["nanoseconds"] = int(ctx.meter.seconds * 1e9)
        return None, None, None, None


class _Last(torch.autograd.Function):
    """Takes a block's output, and hands back a gradient that nobody else holds."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, meter: Meter, seen: dict[str, int]) -> Tensor:
        ctx.meter, ctx.like = meter, (output.shape, output.stride(), output.dtype)
        return output.new_empty((0,))  # no bytes, so that nothing but the block counts

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        shape, stride, dtype = ctx.like
        ctx.meter.reset()
        grad = torch.empty_strided(shape, stride, dtype=dtype, device="meta")
        return grad, None, None
