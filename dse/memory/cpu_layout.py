"""Correct the layout of meta operators' results to that of the CPU's operators."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dse.memory_formats import CHANNELS_LAST, prefers_channels_last

_IMAGE_DIMENSIONS = 4

_RESULT_LIKE = {
    "aten::_ctc_loss_backward": 1,
    "aten::fractional_max_pool3d_backward": 1,
    "aten::multi_margin_loss_backward": 1,
    "aten::multilabel_margin_loss_backward": 1,
}
"""Operators unknown to meta tensors, with the position of the argument that the result is like."""


def known_layout(operator: str, args: Sequence[Any]) -> torch.Tensor | None:
    """Return the result of an operator that meta tensors don't support. None for all others.

    Args:
        operator: Name of the operator, such as ``aten::convolution``.
        args: Arguments on meta.
    """
    position = _RESULT_LIKE.get(operator)
    return None if position is None else torch.empty_like(args[position])


_LIKE_THEIR_INPUT = (
    "aten::hardtanh", "aten::hardtanh_backward", "aten::threshold_backward", "aten::hardswish",
    "aten::hardswish_backward", "aten::silu_backward",
)  # fmt: skip


def run_as_on_cpu(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operator on meta tensors. Its results are laid out as the CPU lays them out.

    Some operators are decomposed on meta, which takes milliseconds; their results are made here.
    """
    operator = func.name().partition(".")[0]
    if func._overloadname == "default" and not kwargs and _is_plain(args):  # noqa: SLF001
        if operator in _LIKE_THEIR_INPUT:
            return torch.empty_like(args[0])
        if operator == "aten::native_batch_norm":
            channels = (args[0].shape[1],)
            result = (torch.empty_like(args[0]), *(args[0].new_empty(channels) for _ in range(2)))
            return laid_out_as_on_cpu(operator, args, result)
        if operator == "aten::native_batch_norm_backward":
            like = (args[1], *(args[0].new_empty((args[0].shape[1],)) for _ in range(2)))
            return tuple(
                torch.empty_like(each) if wanted else None
                for each, wanted in zip(like, args[9], strict=True)
            )
    return laid_out_as_on_cpu(operator, args, func(*args, **kwargs))


def _is_plain(args: Sequence[Any]) -> bool:
    """Whether all images among the arguments have one layout without gaps, in single precision."""
    tensors = [each for each in args if isinstance(each, torch.Tensor)]
    if not tensors or any(not t.is_meta or t.dtype != torch.float32 for t in tensors):
        return False
    images = [tensor for tensor in tensors if tensor.shape == tensors[0].shape]
    others = [tensor for tensor in tensors if tensor.shape != tensors[0].shape]
    first = images[0]
    dense = first.is_contiguous() or first.is_contiguous(memory_format=torch.channels_last)
    return (
        first.ndim == _IMAGE_DIMENSIONS
        and dense
        and all(each.stride() == first.stride() for each in images)
        and all(each.ndim == 1 for each in others)
    )


def laid_out_as_on_cpu(operator: str, args: Sequence[Any], result: Any) -> Any:
    """Return an operator's result on meta tensors with the layout that the CPU gives it.

    The meta convolution loses channels-last, and later operators would then copy where the CPU does
    not. Batch normalisation on meta returns other statistics than on the CPU.
    """
    if operator == "aten::native_batch_norm":
        return _batch_norm_as_on_cpu(args, result)
    if operator == "aten::native_batch_norm_backward":  # the CPU makes only requested gradients
        return tuple(
            each if requested else None for each, requested in zip(result, args[9], strict=True)
        )
    if operator == "aten::convolution":
        inputs, weight = args[0], args[1]
    elif operator == "aten::convolution_backward":
        inputs, weight = args[1], args[2]
    else:
        return result
    if not (prefers_channels_last(inputs) or prefers_channels_last(weight)):
        return result

    def channels_last(tensor: Any) -> Any:
        if tensor is None or tensor.ndim not in CHANNELS_LAST:
            return tensor
        return torch.empty_like(tensor, memory_format=CHANNELS_LAST[tensor.ndim])

    return (
        channels_last(result)
        if isinstance(result, torch.Tensor)
        else tuple(channels_last(tensor) for tensor in result)
    )


def _batch_norm_as_on_cpu(args: Sequence[Any], result: Any) -> Any:
    """Return no statistics in eval mode, and those of the parameters' type in half precision."""
    inputs, weight, _, _, _, trains = args[:6]
    output, *statistics = result
    if not trains:
        return (output, *(tensor.new_empty(0) for tensor in statistics))
    if weight is not None and weight.dtype != inputs.dtype:
        return (output, *(tensor.to(weight.dtype) for tensor in statistics))
    return result
