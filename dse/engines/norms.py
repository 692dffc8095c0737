"""Batch normalisation and layer normalisation."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dse.engines.op import Call, Grads, Modules, Op, Slice, Wanted, tensor_at
from dse.memory_formats import memory_format_of

aten = torch.ops.aten

# What torch.batch_norm calls: it picks the device's kernel.
_batch_norm: Any = torch._batch_norm_impl_index  # noqa: SLF001  # no public name
_batch_norm_backward: Any = aten._batch_norm_impl_index_backward  # noqa: SLF001


@dataclass(frozen=True)
class Statistics:
    """Running statistics of a batch normalisation, and how this step treats them.

    Attributes:
        mean, variance: Running statistics, or None.
        trains: Whether the batch's own statistics are used.
        momentum: Share of the batch's statistics in the running ones.
        eps: Added to the variance.
    """

    mean: Tensor | None
    variance: Tensor | None
    trains: bool
    momentum: float
    eps: float


@dataclass(frozen=True)
class BatchNorm(Op):
    """Batch normalisation of a module. Running statistics move in the first run only.

    Attributes:
        module: Name of the module.
    """

    module: str = ""

    local: ClassVar[bool] = True
    same_in_slices: ClassVar[bool] = True

    def state(self, modules: Modules, *, first: bool) -> Statistics:
        """Count the batch and return the statistics, as the module itself would."""
        norm: Any = modules[self.module]
        momentum = 0.0 if norm.momentum is None else norm.momentum
        tracks = norm.training and norm.track_running_stats
        if tracks and first and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            if norm.momentum is None:
                momentum = 1.0 / float(norm.num_batches_tracked)
        known = not norm.training or norm.track_running_stats
        return Statistics(
            mean=norm.running_mean if known else None,
            variance=norm.running_var if known else None,
            trains=norm.training or norm.running_mean is None,
            momentum=momentum,
            eps=norm.eps,
        )

    def trait(self, state: Statistics) -> Hashable:
        """Return whether the batch's statistics are used."""
        return state.trains

    def forward(
        self, inputs: Sequence[Tensor], parameters: Grads, state: Statistics, *, in_place: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normalise and keep the batch's statistics."""
        output, mean, inverse, reserve, kind = _batch_norm(
            inputs[0], *parameters, state.mean, state.variance, state.trains, state.momentum,
            state.eps, torch.backends.cudnn.enabled,
        )  # fmt: skip
        if not state.trains:
            return output, ()
        return output, (mean, inverse) if kind == 0 else (mean, inverse, reserve)

    def again(
        self,
        inputs: Sequence[Tensor],
        parameters: Grads,
        state: Statistics,
        kept: Sequence[Tensor],
        *,
        in_place: bool,
    ) -> Tensor:
        """Normalise by the kept statistics, through the same kernel."""
        weight, bias = parameters
        if not state.trains:
            return self.forward(inputs, parameters, state, in_place=False)[0]
        mean, inverse = kept[:2]
        if inputs[0].is_cuda:  # other kernels: only the very same call gives the same bits
            again = (None, None, True, 0.0, state.eps, torch.backends.cudnn.enabled)
            return _batch_norm(inputs[0], weight, bias, *again)[0]  # type: ignore[no-any-return]
        # With a variance of one and the inverse deviation in the scale, evaluation computes the
        # same scale and shift as training did.
        scale = inverse if weight is None else weight * inverse
        unit = (mean, torch.ones_like(mean), False, 0.0, 0.0)
        output: Tensor = torch.native_batch_norm(inputs[0], scale, bias, *unit)[0]
        return output

    def needs(self, wanted: Wanted, trait: Hashable) -> frozenset[int]:
        """Return the input, unless a frozen scale in evaluation mode makes it useless."""
        return frozenset([0] if trait or wanted.parameters[0] else [])

    def backward(
        self, grad: Tensor, inputs: Sequence[Tensor | None], output: Tensor | None, call: Call
    ) -> tuple[Grads, Grads]:
        """Differentiate with PyTorch's own operator."""
        weight, _ = call.parameters
        state: Statistics = call.state
        mean, inverse, *reserve = call.kept or (None, None)
        mask = (call.wanted.inputs[0], *call.wanted.parameters)
        images = inputs[0]
        if images is None:  # in evaluation only its layout matters
            same = memory_format_of(grad) == call.layouts[0].memory_format
            images = grad if same else call.layouts[0].empty(grad)
        if call.kept and reserve:
            kind = 1 if grad.is_cuda and torch.version.hip is None else 2
            return _split(
                _batch_norm_backward(
                    kind, images, grad, weight, state.mean, state.variance, mean, inverse,
                    state.trains, state.eps, mask, reserve[0],
                )
            )  # fmt: skip
        return _split(
            aten.native_batch_norm_backward(
                grad, images, weight, state.mean, state.variance, mean, inverse, state.trains,
                state.eps, mask,
            )
        )  # fmt: skip

    def sliced_state(self, state: Statistics, chunk: Slice) -> Statistics:
        """Return views of the running statistics, so that they move in place."""
        return Statistics(
            mean=None if state.mean is None else chunk.of(state.mean),
            variance=None if state.variance is None else chunk.of(state.variance),
            trains=state.trains,
            momentum=state.momentum,
            eps=state.eps,
        )


@dataclass(frozen=True)
class BatchNormCall(BatchNorm):
    """A call of ``torch.nn.functional.batch_norm``.

    Attributes:
        mean, variance: Dotted names of the running statistics, or None.
        trains, momentum, eps: Arguments of the call.
    """

    mean: str | None = None
    variance: str | None = None
    trains: bool = False
    momentum: float = 0.1
    eps: float = 1e-5

    def state(self, modules: Modules, *, first: bool) -> Statistics:
        """Return the statistics that the call names."""
        return Statistics(
            mean=None if self.mean is None else tensor_at(modules, self.mean),
            variance=None if self.variance is None else tensor_at(modules, self.variance),
            trains=self.trains,
            momentum=self.momentum,
            eps=self.eps,
        )


@dataclass(frozen=True)
class LayerNorm(Op):
    """Layer normalisation over the last dimensions.

    Attributes:
        shape: Sizes of these dimensions.
        eps: Added to the variance.
    """

    shape: tuple[int, ...] = ()
    eps: float = 1e-5

    def forward(
        self, inputs: Sequence[Tensor], parameters: Grads, state: Any, *, in_place: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normalise and keep the statistics."""
        weight, bias = parameters
        output, mean, inverse = torch.native_layer_norm(
            inputs[0], self.shape, weight, bias, self.eps
        )
        return output, (mean, inverse)

    def needs(self, wanted: Wanted, trait: Hashable) -> frozenset[int]:
        """Return the input."""
        return frozenset([0] if wanted.inputs[0] or wanted.parameters[0] else [])

    def backward(
        self, grad: Tensor, inputs: Sequence[Tensor | None], output: Tensor | None, call: Call
    ) -> tuple[Grads, Grads]:
        """Differentiate with PyTorch's own operator."""
        weight, bias = call.parameters
        mask = (call.wanted.inputs[0], *call.wanted.parameters)
        images = grad if inputs[0] is None else inputs[0]
        return _split(
            aten.native_layer_norm_backward(
                grad, images, self.shape, *call.kept, weight, bias, mask
            )
        )


def _split(grads: Sequence[Tensor | None]) -> tuple[Grads, Grads]:
    return grads[:1], grads[1:]
