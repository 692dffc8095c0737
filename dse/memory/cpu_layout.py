"""Results of operators on tensors without contents, as the CPU would have laid them out."""

from collections.abc import Sequence
from typing import Any

import torch

_IMAGE_DIMENSIONS = 4


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
