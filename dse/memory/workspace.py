"""Which operators of a step need workspace, and how much for one candidate on one machine."""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dse.errors import MemoryModelError
from dse.memory.compiled import CompiledTape
from dse.memory.convolution import Convolution, backward_workspace, forward_workspace
from dse.memory.scratch import FLOAT, Machine
from dse.memory.tape import Call

_IMAGE_DIMENSIONS = 4
_FIXED = 19

Note = tuple[tuple[int, int, int, int], tuple[int, ...]]


class Kind(IntEnum):
    """What a call is; the first number of its fixed ones."""

    UNKNOWN = 0
    FORWARD = 1
    BACKWARD = 2
    NORM_FORWARD = 3
    NORM_BACKWARD = 4


def recorded_call(operator: str, args: Sequence[Any], result: Any, *, position: int) -> Call | None:
    """Note an operator that needs workspace; None for every other.

    Args:
        operator: such as ``aten::convolution``.
        args: as dispatched.
        result: what the operator returned.
        position: events of the tape so far.
    """
    note = _NOTES.get(operator)
    if note is None:
        return None
    dims, fixed = note(args, result)
    return Call(position=position, dims=dims, fixed=fixed + (0,) * (_FIXED - len(fixed)))


def _note_convolution(args: Sequence[Any], result: Any) -> Note:
    inputs, weight, bias, stride, padding, dilation, transposed, _, groups = args
    return _convolution(
        (inputs, None, weight),
        result.shape,
        (stride, padding, dilation, transposed, groups),
        (False, False, False, bias is not None),
    )


def _note_convolution_backward(args: Sequence[Any], _result: Any) -> Note:
    gradient, inputs, weight, bias, stride, padding, dilation, transposed, _, groups, mask = args
    return _convolution(
        (inputs, gradient, weight),
        gradient.shape,
        (stride, padding, dilation, transposed, groups),
        (*mask, bias is not None),
    )


def _convolution(
    tensors: tuple[Any, Any, Any], outputs: Any, settings: tuple[Any, ...], wanted: tuple[Any, ...]
) -> Note:
    inputs, gradient, weight = tensors
    stride, padding, dilation, transposed, groups = settings
    known = (
        inputs.ndim == _IMAGE_DIMENSIONS
        and inputs.dtype == torch.float32
        and not transposed
        and set(dilation) == {1}
    )
    channels_last = _prefers_channels_last(inputs) or _prefers_channels_last(weight)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    copied = (
        known and tensor is not None and not tensor.is_contiguous(memory_format=layout)
        for tensor in (inputs, gradient, weight)
    )
    kind = (Kind.FORWARD if gradient is None else Kind.BACKWARD) if known else Kind.UNKNOWN
    geometry = (*weight.shape[2:], *stride, *padding, *inputs.shape[2:], *outputs[2:])
    numbers = (kind, channels_last, *copied, *wanted, *geometry)
    dims = (inputs.shape[0], inputs.shape[1], outputs[1], groups)
    return dims, tuple(int(number) for number in numbers)[:_FIXED]


def _note_norm(args: Sequence[Any], _result: Any) -> Note:
    return _norm(Kind.NORM_FORWARD, args[0], channels=1, scratch=True, copied=False)


def _note_norm_backward(args: Sequence[Any], _result: Any) -> Note:
    gradient, inputs, mask = args[0], args[1], args[9]
    copied = mask[0] and _prefers_channels_last(gradient) == _prefers_channels_last(inputs)
    scratch = _prefers_channels_last(inputs)
    return _norm(Kind.NORM_BACKWARD, inputs, channels=1, scratch=scratch, copied=copied)


def _note_layer_norm(args: Sequence[Any], _result: Any) -> Note:
    copied = not args[0].is_contiguous()
    return _norm(Kind.NORM_FORWARD, args[0], channels=-1, scratch=False, copied=copied)


def _note_layer_norm_backward(args: Sequence[Any], _result: Any) -> Note:
    gradient, inputs = args[0], args[1]
    copied = int(not inputs.is_contiguous()) + int(not gradient.is_contiguous())
    return _norm(Kind.NORM_BACKWARD, inputs, channels=-1, scratch=True, copied=copied)


def _norm(kind: "Kind", inputs: Any, *, channels: int, scratch: bool, copied: int) -> Note:
    """A normalisation: scratch for each channel, and perhaps copies of its inputs."""
    count = inputs.shape[channels]
    pixels = inputs.numel() // (inputs.shape[0] * count)
    return (inputs.shape[0], count, count, 1), (int(kind), pixels, int(scratch), int(copied))


def laid_out_as_on_cpu(operator: str, args: Sequence[Any], result: Any) -> Any:
    """What an operator on meta tensors returned, as the CPU's would have laid it out.

    The meta convolution forgets channels-last, and all that follows would copy where the CPU
    doesn't; meta normalisation returns what the CPU doesn't.
    """
    if operator == "aten::native_batch_norm":
        return _batch_norm_as_on_cpu(args, result)
    if operator == "aten::native_batch_norm_backward":  # not each gradient was asked for
        return tuple(each if asked else None for each, asked in zip(result, args[9], strict=True))
    if operator == "aten::convolution":
        inputs, weight = args[0], args[1]
    elif operator == "aten::convolution_backward":
        inputs, weight = args[1], args[2]
    else:
        return result
    if not (_prefers_channels_last(inputs) or _prefers_channels_last(weight)):
        return result

    def channels_last(tensor: Any) -> Any:
        if tensor is None or tensor.ndim != _IMAGE_DIMENSIONS:
            return tensor
        return torch.empty_like(tensor, memory_format=torch.channels_last)

    return (
        channels_last(result)
        if isinstance(result, torch.Tensor)
        else tuple(channels_last(tensor) for tensor in result)
    )


def _batch_norm_as_on_cpu(args: Sequence[Any], result: Any) -> Any:
    """Without statistics in evaluation mode; in half precision with the parameters' own."""
    inputs, weight, _, _, _, trains = args[:6]
    output, *statistics = result
    if not trains:
        return (output, *(tensor.new_empty(0) for tensor in statistics))
    if weight is not None and weight.dtype != inputs.dtype:
        return (output, *(tensor.to(weight.dtype) for tensor in statistics))
    return result


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
    kind = fixed[0]
    if kind in (Kind.NORM_FORWARD, Kind.NORM_BACKWARD):
        batch, channels, _, _ = dims
        _, pixels, scratch, copied, *_ = fixed
        rows = 2 if kind == Kind.NORM_FORWARD else 2 * machine.threads + 1
        copies = copied * batch * channels * pixels * FLOAT
        return max(copies, scratch * rows * channels * FLOAT)
    if kind == Kind.UNKNOWN:
        raise MemoryModelError(
            "workspace is known for two-dimensional single-precision convolutions without "
            "dilation or transposition only: run each operator alone (--probe), or use the tensors "
            "convention"
        )
    _, channels_last, copied_inputs, copied_outputs, copied_weights, *rest = fixed
    data, weights, bias_gradient, bias, *geometry = rest
    conv = Convolution(
        batch=dims[0],
        inputs=dims[1],
        outputs=dims[2],
        groups=dims[3],
        kernel=(geometry[0], geometry[1]),
        stride=(geometry[2], geometry[3]),
        padding=(geometry[4], geometry[5]),
        image=(geometry[6], geometry[7]),
        result=(geometry[8], geometry[9]),
        bias=bool(bias),
        channels_last=bool(channels_last),
        copied_inputs=bool(copied_inputs),
        copied_outputs=bool(copied_outputs),
        copied_weights=bool(copied_weights),
    )
    if kind == Kind.FORWARD:
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


_NOTES: dict[str, Callable[[Sequence[Any], Any], Note]] = {
    "aten::convolution": _note_convolution,
    "aten::convolution_backward": _note_convolution_backward,
    "aten::native_batch_norm": _note_norm,
    "aten::native_batch_norm_backward": _note_norm_backward,
    "aten::native_layer_norm": _note_layer_norm,
    "aten::native_layer_norm_backward": _note_layer_norm_backward,
}
