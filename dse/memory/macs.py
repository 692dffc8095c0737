"""Count multiply-adds of operators. One multiply-add counts as one, as in fvcore."""

from collections.abc import Callable, Sequence
from typing import Any


def operator_macs(operator: str, args: Sequence[Any], result: Any) -> list[tuple[int, ...]]:
    """Return the dimensions whose product is the number of multiply-adds of an operator call.

    Args:
        operator: Name of the operator, such as ``aten::convolution``.
        args: Arguments as dispatched.
        result: What the operator returned.

    Returns:
        One tuple of dimensions, or an empty list for operators that are not counted.
    """
    if operator.startswith(_FUSED_ATTENTION):
        return _attention(args)
    rule = _RULES.get(operator)
    return [] if rule is None else [rule(args, result)]


def _attention(args: Sequence[Any]) -> list[tuple[int, ...]]:
    """Queries with keys, and scores with values, as the operators that compute them one by one."""
    queries, keys, values = args[:3]
    scores = (*queries.shape[:-1], keys.shape[-2])
    return [(*scores, queries.shape[-1]), (*scores, values.shape[-1])]


def _convolution(args: Sequence[Any], result: Any) -> tuple[int, ...]:
    inputs, weight, transposed = args[0], args[1], args[6]
    if transposed:  # every input element is multiplied by all weights of its input channel
        return (*inputs.shape, *weight.shape[1:])
    return (*result.shape, *weight.shape[1:])


def _product(args: Sequence[Any], result: Any) -> tuple[int, ...]:
    return (*result.shape, args[0].shape[-1])


def _biased_product(args: Sequence[Any], result: Any) -> tuple[int, ...]:
    return (*result.shape, args[1].shape[-1])


_FUSED_ATTENTION = (
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
)

_RULES: dict[str, Callable[[Sequence[Any], Any], tuple[int, ...]]] = {
    "aten::convolution": _convolution,
    "aten::mm": _product,
    "aten::bmm": _product,
    "aten::addmm": _biased_product,
    "aten::baddbmm": _biased_product,
}
