"""Multiply-adds of the operators that multiply: one multiply-add counts as one, as in fvcore."""

from collections.abc import Callable, Sequence
from typing import Any


def operator_macs(operator: str, args: Sequence[Any], result: Any) -> list[tuple[int, ...]]:
    """Dimensions whose product is the number of multiply-adds of one operator call.

    Args:
        operator: such as ``aten::convolution``.
        args: as dispatched.
        result: what the operator returned.
    """
    rule = _RULES.get(operator)
    return [] if rule is None else [rule(args, result)]


def _convolution(args: Sequence[Any], result: Any) -> tuple[int, ...]:
    inputs, weight, transposed = args[0], args[1], args[6]
    if transposed:  # every input element meets every element of one slice of the kernel
        return (*inputs.shape, *weight.shape[1:])
    return (*result.shape, *weight.shape[1:])


def _product(args: Sequence[Any], result: Any) -> tuple[int, ...]:
    return (*result.shape, args[0].shape[-1])


def _biased_product(args: Sequence[Any], result: Any) -> tuple[int, ...]:
    return (*result.shape, args[1].shape[-1])


_RULES: dict[str, Callable[[Sequence[Any], Any], tuple[int, ...]]] = {
    "aten::convolution": _convolution,
    "aten::mm": _product,
    "aten::bmm": _product,
    "aten::addmm": _biased_product,
    "aten::baddbmm": _biased_product,
}
