"""Run calls that aren't recognised without holding more than their input: run them again later."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from dse.engines.graph import run_nodes
from dse.engines.op import Modules, refuse_second_derivative
from dse.engines.segments import Segment
from dse.step.checkpointing import drawn_from, random_state, statistics_kept


def can_recompute(segment: Segment) -> bool:
    """Whether a second run of a segment has no effect that must happen once only.

    Functions that change buffers are run by stock PyTorch. Modules of PyTorch's that do are known.
    """
    return (
        bool(segment.output)
        and not segment.overwrites_input
        and not any(
            node.kind == "function" and getattr(node.target, "__name__", "") == "batch_norm"
            for node in segment.nodes
        )
    )


def run_recomputed(segment: Segment, value: Tensor, modules: Modules) -> Tensor:
    """Run a segment and hold its input, its parameters and the random state alone."""
    parameters = [tensor for tensor in segment.tensors(modules) if tensor.requires_grad]
    output: Tensor = _Recomputed.apply(segment, modules, value, *parameters)
    return output


def _run(segment: Segment, value: Tensor, modules: Modules) -> Tensor:
    results: dict[str, Any] = {segment.input: value}
    del value
    run_nodes(segment.nodes, modules, results, keep=(segment.output,))
    output: Tensor = results[segment.output]
    return output


class _Recomputed(torch.autograd.Function):
    """The autograd node of a segment that is run again."""

    @staticmethod
    def forward(
        ctx: Any, segment: Segment, modules: Modules, value: Tensor, *parameters: Tensor
    ) -> Tensor:
        state = random_state(value.device)
        ctx.segment, ctx.modules = segment, modules
        ctx.save_for_backward(value, *parameters, *(each for each in state if each is not None))
        ctx.count = len(parameters)
        return _run(segment, value, modules)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        refuse_second_derivative()
        value, *rest = ctx.saved_tensors
        parameters, state = rest[: ctx.count], rest[ctx.count :]
        both = (state[0], state[1] if len(state) > 1 else None)
        needs = list(ctx.needs_input_grad[2:])
        inputs = value.detach().requires_grad_(needs[0])
        with ExitStack() as stack:
            for module in _called(ctx.segment, ctx.modules):
                stack.enter_context(statistics_kept(module))
            stack.enter_context(drawn_from(both, value.device))
            stack.enter_context(torch.enable_grad())
            output = _run(ctx.segment, inputs, ctx.modules)
        wanted = [each for each, need in zip((inputs, *parameters), needs, strict=True) if need]
        found = iter(torch.autograd.grad(output, wanted, grads[0], allow_unused=True))
        return (None, None, *(next(found) if need else None for need in needs))


def _called(segment: Segment, modules: Modules) -> Sequence[Any]:
    return [modules[node.target] for node in segment.nodes if node.kind == "module"]
