"""Which operators of a step need workspace, and how much for one candidate on one machine."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dse.errors import MemoryModelError
from dse.memory.compiled import CompiledTape
from dse.memory.convolution import Convolution, backward_workspace, forward_workspace
from dse.memory.scratch import Machine
from dse.memory.tape import Call

_IMAGE_DIMENSIONS = 4


def recorded_call(operator: str, args: Sequence[Any], result: Any, *, position: int) -> Call | None:
    """Note an operator that needs workspace; None for every other.

    Args:
        operator: such as ``aten::convolution``.
        args: as dispatched.
        result: what the operator returned.
        position: events of the tape so far.
    """
    if operator == "aten::convolution":
        inputs, weight, bias, stride, padding, dilation, transposed, _, groups = args
        outputs, wanted, gradient = result, (False, False, bias is not None), None
    elif operator == "aten::convolution_backward":
        gradient, inputs, weight, bias, stride, padding, dilation, transposed, _, groups, mask = (
            args
        )
        outputs, wanted = gradient, tuple(mask)
    else:
        return None
    known = (
        inputs.ndim == _IMAGE_DIMENSIONS
        and inputs.dtype == torch.float32
        and not transposed
        and set(dilation) == {1}
    )
    channels_last = _prefers_channels_last(inputs) or _prefers_channels_last(weight)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    ready = [
        tensor is None or tensor.is_contiguous(memory_format=layout)
        for tensor in (inputs, gradient)
    ]
    return Call(
        position=position,
        dims=(inputs.shape[0], inputs.shape[1], outputs.shape[1], groups),
        fixed=(
            int(known),
            int(gradient is None),
            int(channels_last),
            *(int(not contiguous) for contiguous in ready),
            *(int(want) for want in wanted),
            int(bias is not None),
            *(int(value) for value in (*weight.shape[2:], *stride, *padding)),
            *(int(value) for value in (*inputs.shape[2:], *outputs.shape[2:])),
        ),
    )


def call_workspace(tape: CompiledTape, sizes: NDArray[np.int64], machine: Machine) -> list[int]:
    """Workspace bytes of every call that the tape noted.

    Args:
        tape: compiled.
        sizes: of all its terms for one candidate, see ``CompiledTape.terms_at``.
        machine: what runs the step.

    Raises:
        MemoryModelError: a convolution for which no rule is known.
    """
    return [
        _bytes(tuple(dims), tuple(fixed), machine)
        for dims, fixed in zip(
            sizes[tape.call_terms].tolist(), tape.call_fixed.tolist(), strict=True
        )
    ]


def _bytes(dims: tuple[int, ...], fixed: tuple[int, ...], machine: Machine) -> int:
    known, forward, channels_last, copied_inputs, copied_outputs, *rest = fixed
    data, weights, bias_gradient, bias, *geometry = rest
    if not known:
        raise MemoryModelError(
            "workspace is known for two-dimensional single-precision convolutions without "
            "dilation or transposition only; use the tensors convention for this network"
        )
    pairs = [tuple(geometry[at : at + 2]) for at in range(0, len(geometry), 2)]
    kernel, stride, padding, image, result = pairs
    batch, inputs, outputs, groups = dims
    conv = Convolution(
        batch=batch,
        inputs=inputs,
        outputs=outputs,
        groups=groups,
        kernel=(kernel[0], kernel[1]),
        stride=(stride[0], stride[1]),
        padding=(padding[0], padding[1]),
        image=(image[0], image[1]),
        result=(result[0], result[1]),
        bias=bool(bias),
        channels_last=bool(channels_last),
        copied_inputs=bool(copied_inputs),
        copied_outputs=bool(copied_outputs),
    )
    if forward:
        return forward_workspace(conv, machine)
    return backward_workspace(
        conv, machine, data=bool(data), weights=bool(weights), bias=bool(bias_gradient)
    )


def _prefers_channels_last(tensor: torch.Tensor) -> bool:
    """Whether PyTorch takes its strides for channels-last; ambiguous ones count as contiguous."""
    if tensor.ndim != _IMAGE_DIMENSIONS:
        return False
    if tensor.stride(1) == 0:
        return False
    smallest = 0
    for dimension in (1, 3, 2, 0):
        size, stride = tensor.shape[dimension], tensor.stride(dimension)
        if size == 0 or stride < smallest or (dimension == 0 and smallest == tensor.stride(1)):
            return False
        smallest = stride * size if size > 1 else stride
    return True
