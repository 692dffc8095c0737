"""Convolutions and linear layers."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from dse.engines.op import Call, Grads, Modules, Op, Slice, Wanted, present

aten = torch.ops.aten


@dataclass(frozen=True)
class Layer(Op):
    """A layer with a weight and perhaps a bias."""

    heavy: ClassVar[bool] = True

    def needs(self, wanted: Wanted, trait: Hashable) -> frozenset[int]:
        """Return the input, if the weight trains."""
        return frozenset([0] if wanted.parameters[0] else [])

    def first(self, parameters: Grads, chunk: Slice) -> tuple[Tensor | None, ...]:
        """Return the parameters that compute one chunk of this layer's outputs."""
        return self.sliced(parameters, chunk)

    def last(self, parameters: Grads, chunk: Slice) -> tuple[Tensor | None, ...]:
        """Return the parameters that read one chunk of inputs. The first chunk adds the bias."""
        weight, bias = parameters
        return None if weight is None else chunk.of(weight, 1), bias if chunk.start == 0 else None


@dataclass(frozen=True)
class Convolution(Layer):
    """A convolution over images.

    Attributes:
        stride, padding, dilation: Per side.
        groups: Number of groups.
    """

    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1

    same_in_slices: ClassVar[bool] = True

    @property
    def local(self) -> bool:  # type: ignore[override]  # depends on the groups
        """Whether every group of channels is computed from the same group."""
        return self.groups > 1

    def state(self, modules: Modules, *, first: bool) -> int:
        """Return the number of groups."""
        return self.groups

    def forward(
        self, inputs: Sequence[Tensor], parameters: Grads, state: Any, *, in_place: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Convolve."""
        weight, bias = parameters
        how = (self.stride, self.padding, self.dilation, False, (0, 0), state)
        return torch.convolution(inputs[0], present(weight), bias, *how), ()

    def backward(
        self, grad: Tensor, inputs: Sequence[Tensor | None], output: Tensor | None, call: Call
    ) -> tuple[Grads, Grads]:
        """Differentiate with PyTorch's own operator."""
        weight, bias = call.parameters
        of_bias_too = call.wanted.parameters[1] and bias is not None
        mask = (call.wanted.inputs[0], call.wanted.parameters[0], of_bias_too)
        # Without the weight's gradient only the layout of the input matters.
        images = call.layouts[0].empty(grad) if inputs[0] is None else inputs[0]
        how = (self.stride, self.padding, self.dilation, False, (0, 0), call.state)
        of_input, of_weight, of_bias = aten.convolution_backward(
            grad, images, present(weight), None if bias is None else bias.shape, *how, mask
        )
        return [of_input], [of_weight, of_bias]

    def sliced_state(self, state: Any, chunk: Slice) -> Any:
        """Return the groups of one chunk. An ungrouped convolution stays ungrouped."""
        if state == 1:
            return state
        return state // chunk.parts * (chunk.stop - chunk.start)


@dataclass(frozen=True)
class Linear(Layer):
    """A linear layer over the last dimension."""

    def forward(
        self, inputs: Sequence[Tensor], parameters: Grads, state: Any, *, in_place: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Multiply by the weight and add the bias."""
        weight, bias = parameters
        return functional.linear(inputs[0], present(weight), bias), ()

    def backward(
        self, grad: Tensor, inputs: Sequence[Tensor | None], output: Tensor | None, call: Call
    ) -> tuple[Grads, Grads]:
        """Differentiate by the matrix products that autograd takes."""
        weight = present(call.parameters[0])
        rows = grad.reshape(-1, grad.shape[-1])
        of_input = of_weight = of_bias = None
        if call.wanted.inputs[0]:
            of_input = rows.mm(weight).view(call.shapes[0])
        if call.wanted.parameters[0]:
            of_weight = rows.t().mm(present(inputs[0]).reshape(-1, weight.shape[1]))
        if call.wanted.parameters[1] and call.parameters[1] is not None:
            of_bias = rows.sum(0)
        return [of_input], [of_weight, of_bias]
