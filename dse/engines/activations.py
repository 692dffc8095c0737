"""Activation functions: each value is computed from the same value alone."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dse.engines.layouts import laid_out_anew, laid_out_as_stock
from dse.engines.op import OUTPUT, Call, Grads, Op, Wanted, present

aten = torch.ops.aten

Options = tuple[Any, ...]


@dataclass(frozen=True)
class Rule:
    """How one activation function is computed and differentiated.

    Attributes:
        forward: Of the values and the options.
        overwrite: The same, into the values.
        backward: Of the gradient, of the values that it reads and of the options, with the target
            as ``out`` if the gradient may be overwritten.
        reads: ``OUTPUT`` if the derivative is computed from the result, 0 if from the input.
    """

    forward: Callable[..., Tensor]
    overwrite: Callable[..., Tensor]
    backward: Callable[..., Tensor]
    reads: int


def _backward(plain: Any, into: Any, name: str = "grad_input") -> Callable[..., Tensor]:
    def differentiate(grad: Tensor, values: Tensor, *options: Any, out: Tensor | None) -> Tensor:
        if out is None:
            return plain(grad, values, *options)  # type: ignore[no-any-return]
        return into(grad, values, *options, **{name: out})  # type: ignore[no-any-return]

    return differentiate


def _gelu_backward(grad: Tensor, values: Tensor, how: str, *, out: Tensor | None) -> Tensor:
    if out is None:
        return aten.gelu_backward(grad, values, approximate=how)  # type: ignore[no-any-return]
    return aten.gelu_backward.grad_input(grad, values, approximate=how, grad_input=out)  # type: ignore[no-any-return]


def _threshold_backward(grad: Tensor, values: Tensor, *, out: Tensor | None) -> Tensor:
    if out is None:
        return aten.threshold_backward(grad, values, 0)  # type: ignore[no-any-return]
    return aten.threshold_backward.grad_input(grad, values, 0, grad_input=out)  # type: ignore[no-any-return]


RULES: Mapping[str, Rule] = {
    "relu": Rule(torch.relu, torch.relu_, _threshold_backward, OUTPUT),
    "hardtanh": Rule(
        aten.hardtanh,
        aten.hardtanh_,
        _backward(aten.hardtanh_backward, aten.hardtanh_backward.grad_input),
        OUTPUT,
    ),
    "sigmoid": Rule(
        torch.sigmoid,
        torch.sigmoid_,
        _backward(aten.sigmoid_backward, aten.sigmoid_backward.grad_input),
        OUTPUT,
    ),
    "tanh": Rule(
        torch.tanh,
        torch.tanh_,
        _backward(aten.tanh_backward, aten.tanh_backward.grad_input),
        OUTPUT,
    ),
    "silu": Rule(
        aten.silu, aten.silu_, _backward(aten.silu_backward, aten.silu_backward.grad_input), 0
    ),
    "hardswish": Rule(
        aten.hardswish,
        aten.hardswish_,
        _backward(aten.hardswish_backward, aten.hardswish_backward.out, "out"),
        0,
    ),
    "hardsigmoid": Rule(
        aten.hardsigmoid,
        aten.hardsigmoid_,
        _backward(aten.hardsigmoid_backward, aten.hardsigmoid_backward.grad_input),
        0,
    ),
    "gelu": Rule(
        lambda values, how: aten.gelu(values, approximate=how),
        lambda values, how: aten.gelu_(values, approximate=how),
        _gelu_backward,
        0,
    ),
}


@dataclass(frozen=True)
class Activation(Op):
    """An activation function without parameters.

    Attributes:
        name: Key of ``RULES``.
        options: Further arguments, such as the bounds of ``hardtanh``.
        overwrites: Whether stock PyTorch overwrites the input.
    """

    name: str = ""
    options: Options = ()
    overwrites: bool = False

    elementwise: ClassVar[bool] = True
    local: ClassVar[bool] = True

    @property
    def same_in_slices(self) -> bool:  # type: ignore[override]  # depends on the function
        """Whether vectors of values and single ones are computed alike, to the last bit.

        PyTorch computes the end of a tensor value by value. Exponentials differ there.
        """
        return self.name in ("relu", "hardtanh", "hardswish", "hardsigmoid")

    @property
    def either(self) -> bool:  # type: ignore[override]  # depends on the function
        """Whether the derivative is the same number read off the input: it is 0 or 1."""
        return self.name in ("relu", "hardtanh")

    def forward(
        self, inputs: Sequence[Tensor], parameters: Grads, state: Any, *, in_place: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute the values."""
        rule = RULES[self.name]
        work = rule.overwrite if in_place else rule.forward
        output = work(inputs[0], *self.options)
        overwritten = inputs[0] if self.overwrites else None
        return laid_out_as_stock(output, in_place=in_place, overwritten=overwritten), ()

    def needs(self, wanted: Wanted, trait: Hashable) -> frozenset[int]:
        """Return the input or the output, whichever the derivative reads."""
        return frozenset([RULES[self.name].reads])

    def backward(
        self, grad: Tensor, inputs: Sequence[Tensor | None], output: Tensor | None, call: Call
    ) -> tuple[Grads, Grads]:
        """Differentiate, into the gradient's own memory if allowed."""
        rule = RULES[self.name]
        reads_output = rule.reads == OUTPUT and output is not None
        values = present(output if reads_output else inputs[0])
        out = grad if call.overwrite else None
        of_input = rule.backward(grad, values, *self.options, out=out)
        return [of_input if out is None else laid_out_anew(of_input)], []
