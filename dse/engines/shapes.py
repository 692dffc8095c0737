"""Sums, products, pooling and changes of shape."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from dse.engines.layouts import laid_out_as_stock
from dse.engines.op import Call, Grads, Op, Wanted, present

aten = torch.ops.aten


@dataclass(frozen=True)
class Add(Op):
    """Sum of two values of the same shape.

    Attributes:
        target: Position of the input that stock PyTorch overwrites, None if it overwrites neither.
    """

    target: int | None = None

    elementwise: ClassVar[bool] = True
    fresh: ClassVar[bool] = False

    def forward(
        self, inputs: Sequence[Tensor], parameters: Grads, state: Any, *, in_place: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Add."""
        first, second = inputs
        overwritten = None if self.target is None else inputs[self.target]
        total = first.add_(second) if in_place else first + second
        return laid_out_as_stock(total, in_place=in_place, overwritten=overwritten), ()

    def needs(self, wanted: Wanted, trait: Hashable) -> frozenset[int]:
        """Return nothing."""
        return frozenset()

    def backward(
        self, grad: Tensor, inputs: Sequence[Tensor | None], output: Tensor | None, call: Call
    ) -> tuple[Grads, Grads]:
        """Pass the gradient on to both."""
        return [grad if each else None for each in call.wanted.inputs], []


@dataclass(frozen=True)
class Multiply(Op):
    """Product of two values, of which the second may be broadcast.

    Attributes:
        overwrites: Whether stock PyTorch overwrites the first.
    """

    overwrites: bool = False

    elementwise: ClassVar[bool] = True

    def forward(
        self, inputs: Sequence[Tensor], parameters: Grads, state: Any, *, in_place: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Multiply."""
        first, second = inputs
        product = first.mul_(second) if in_place else first * second
        overwritten = first if self.overwrites else None
        return laid_out_as_stock(product, in_place=in_place, overwritten=overwritten), ()

    def needs(self, wanted: Wanted, trait: Hashable) -> frozenset[int]:
        """Return the factor of every wanted gradient."""
        return frozenset(1 - place for place, each in enumerate(wanted.inputs) if each)

    def backward(
        self, grad: Tensor, inputs: Sequence[Tensor | None], output: Tensor | None, call: Call
    ) -> tuple[Grads, Grads]:
        """Multiply by the other factor, and sum what was broadcast."""
        grads: list[Tensor | None] = [None, None]
        for place, each in enumerate(call.wanted.inputs):
            if each:
                product = grad * present(inputs[1 - place])
                grads[place] = product.sum_to_size(call.shapes[place])
        return grads, []


@dataclass(frozen=True)
class Scale(Op):
    """Product of a value and a parameter that may be broadcast, such as a layer scale.

    Attributes:
        overwrites: Whether stock PyTorch overwrites the value.
    """

    overwrites: bool = False

    elementwise: ClassVar[bool] = True

    def forward(
        self, inputs: Sequence[Tensor], parameters: Grads, state: Any, *, in_place: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Multiply."""
        factor = present(parameters[0])
        product = inputs[0].mul_(factor) if in_place else inputs[0] * factor
        overwritten = inputs[0] if self.overwrites else None
        return laid_out_as_stock(product, in_place=in_place, overwritten=overwritten), ()

    def needs(self, wanted: Wanted, trait: Hashable) -> frozenset[int]:
        """Return the input, if the parameter trains."""
        return frozenset([0] if wanted.parameters[0] else [])

    def backward(
        self, grad: Tensor, inputs: Sequence[Tensor | None], output: Tensor | None, call: Call
    ) -> tuple[Grads, Grads]:
        """Multiply by the other factor, and sum what was broadcast."""
        factor = present(call.parameters[0])
        of_input = of_factor = None
        if call.wanted.parameters[0]:
            of_factor = (grad * present(inputs[0])).sum_to_size(factor.shape)
        if call.wanted.inputs[0]:
            of_input = (grad * factor).sum_to_size(call.shapes[0])
        return [of_input], [of_factor]


@dataclass(frozen=True)
class GlobalPool(Op):
    """Mean over the last two dimensions.

    Attributes:
        keeps: Whether each of them keeps one entry.
        adaptive: Whether it is adaptive pooling, which keeps the memory format, too.
    """

    keeps: bool = True
    adaptive: bool = False

    local: ClassVar[bool] = True

    def forward(
        self, inputs: Sequence[Tensor], parameters: Grads, state: Any, *, in_place: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Average."""
        if self.adaptive:
            return functional.adaptive_avg_pool2d(inputs[0], 1), ()
        return inputs[0].mean((-2, -1), keepdim=self.keeps), ()

    def needs(self, wanted: Wanted, trait: Hashable) -> frozenset[int]:
        """Return nothing."""
        return frozenset()

    def backward(
        self, grad: Tensor, inputs: Sequence[Tensor | None], output: Tensor | None, call: Call
    ) -> tuple[Grads, Grads]:
        """Spread the gradient evenly."""
        shape = call.shapes[0]
        each = grad if self.keeps else grad.unsqueeze(-1).unsqueeze(-1)
        return [each.expand(shape) / (shape[-1] * shape[-2])], []


@dataclass(frozen=True)
class MaxPool(Op):
    """Maximum of each window. Keeps one byte per window in place of an index of eight.

    Attributes:
        kernel, stride, padding, dilation: Per side.
        ceil: Whether windows may reach over the edge.
    """

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil: bool = False

    local: ClassVar[bool] = True
    same_in_slices: ClassVar[bool] = True

    @property
    def _how(self) -> tuple[Any, ...]:
        return self.kernel, self.stride, self.padding, self.dilation, self.ceil

    def forward(
        self, inputs: Sequence[Tensor], parameters: Grads, state: Any, *, in_place: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Pool, and keep the place of each maximum within its window."""
        output, flat = aten.max_pool2d_with_indices(inputs[0], *self._how)
        width = inputs[0].shape[-1]
        columns = flat.remainder(width).sub_(self._origins(flat, 1))
        columns.div_(self.dilation[1], rounding_mode="floor")
        rows = flat.div_(width, rounding_mode="floor").sub_(self._origins(flat, 0))
        rows.div_(self.dilation[0], rounding_mode="floor")
        return output, (rows.mul_(self.kernel[1]).add_(columns).to(torch.uint8),)

    def again(
        self,
        inputs: Sequence[Tensor],
        parameters: Grads,
        state: Any,
        kept: Sequence[Tensor],
        *,
        in_place: bool,
    ) -> Tensor:
        """Pool without looking for the places."""
        output: Tensor = aten.max_pool2d_with_indices(inputs[0], *self._how)[0]
        return output

    def _origins(self, indices: Tensor, side: int) -> Tensor:
        """Return the first row (side 0) or column (side 1) of every window, broadcastable."""
        count = indices.shape[-2 + side]
        starts = torch.arange(count, device=indices.device)
        starts = starts.mul_(self.stride[side]).sub_(self.padding[side])
        return starts.view(-1, 1) if side == 0 else starts

    def needs(self, wanted: Wanted, trait: Hashable) -> frozenset[int]:
        """Return nothing: the kept places and the shape suffice."""
        return frozenset()

    def backward(
        self, grad: Tensor, inputs: Sequence[Tensor | None], output: Tensor | None, call: Call
    ) -> tuple[Grads, Grads]:
        """Give each maximum its window's gradient."""
        (places,) = call.kept
        flat = places.to(torch.int64)
        columns = flat.remainder(self.kernel[1]).mul_(self.dilation[1])
        columns.add_(self._origins(flat, 1))
        flat.div_(self.kernel[1], rounding_mode="floor").mul_(self.dilation[0])
        flat.add_(self._origins(flat, 0)).mul_(call.shapes[0][-1]).add_(columns)
        del columns
        # PyTorch's operator takes the input for its shape and layout alone.
        target = call.layouts[0].empty(grad)
        work = aten.max_pool2d_with_indices_backward.grad_input
        return [work(grad, target, *self._how, flat, grad_input=target)], []


@dataclass(frozen=True)
class Flatten(Op):
    """All dimensions from ``start`` to ``end`` become one."""

    start: int = 0
    end: int = -1

    views: ClassVar[bool] = True
    fresh: ClassVar[bool] = False

    def forward(
        self, inputs: Sequence[Tensor], parameters: Grads, state: Any, *, in_place: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Flatten."""
        return inputs[0].flatten(self.start, self.end), ()

    def needs(self, wanted: Wanted, trait: Hashable) -> frozenset[int]:
        """Return nothing."""
        return frozenset()

    def backward(
        self, grad: Tensor, inputs: Sequence[Tensor | None], output: Tensor | None, call: Call
    ) -> tuple[Grads, Grads]:
        """Give the gradient the input's shape."""
        return [grad.reshape(call.shapes[0])], []


@dataclass(frozen=True)
class Permute(Op):
    """Dimensions in another order.

    Attributes:
        order: For each dimension of the output, the dimension of the input.
    """

    order: tuple[int, ...] = ()

    views: ClassVar[bool] = True
    fresh: ClassVar[bool] = False

    def forward(
        self, inputs: Sequence[Tensor], parameters: Grads, state: Any, *, in_place: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Permute."""
        return inputs[0].permute(self.order), ()

    def needs(self, wanted: Wanted, trait: Hashable) -> frozenset[int]:
        """Return nothing."""
        return frozenset()

    def backward(
        self, grad: Tensor, inputs: Sequence[Tensor | None], output: Tensor | None, call: Call
    ) -> tuple[Grads, Grads]:
        """Permute back."""
        back = [0] * len(self.order)
        for place, dimension in enumerate(self.order):
            back[dimension % len(self.order)] = place
        return [grad.permute(back)], []


@dataclass(frozen=True)
class Identity(Op):
    """The value itself."""

    local: ClassVar[bool] = True
    same_in_slices: ClassVar[bool] = True
    views: ClassVar[bool] = True
    fresh: ClassVar[bool] = False

    def forward(
        self, inputs: Sequence[Tensor], parameters: Grads, state: Any, *, in_place: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the input."""
        return inputs[0], ()

    def needs(self, wanted: Wanted, trait: Hashable) -> frozenset[int]:
        """Return nothing."""
        return frozenset()

    def backward(
        self, grad: Tensor, inputs: Sequence[Tensor | None], output: Tensor | None, call: Call
    ) -> tuple[Grads, Grads]:
        """Return the gradient."""
        return [grad], []
