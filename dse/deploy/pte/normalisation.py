"""Batch normalisation that trains, in operators that ExecuTorch has kernels for.

ExecuTorch has no kernel for PyTorch's operator that also updates the running statistics, nor for
its backward pass. The forward pass here is the operator without running statistics. The backward
pass is arithmetic on whole tensors. The running statistics are inputs and outputs of the program.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dse.errors import ExportError

_BATCH_NORM = nn.modules.batchnorm._BatchNorm  # noqa: SLF001  # the common base of 1d, 2d and 3d


class TrainingNorm(nn.Module):
    """A batch normalisation layer in training mode that leaves its new statistics to the caller.

    Attributes:
        tracked: whether it has running statistics at all.
        running: mean and variance before the step, each (channels,); set by the caller.
    """

    def __init__(self, layer: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.eps, self.momentum = layer.eps, layer.momentum or 0.0
        self.tracked = layer.running_mean is not None
        self.running: tuple[Tensor, Tensor] | None = None
        self._updated: tuple[Tensor, ...] = ()

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise by the batch's own statistics: (batch, channels, ...) to the same shape."""
        scaled, mean, inverse = torch.ops.aten._native_batch_norm_legit.no_stats(  # noqa: SLF001
            inputs,
            self.weight,
            self.bias,
            True,  # noqa: FBT003
            self.momentum,
            self.eps,
        )
        if self.running is not None:
            self._updated = moved_statistics(
                self.running,
                (mean.detach(), inverse.detach()),
                count=inputs.numel() // inputs.shape[1],
                momentum=self.momentum,
                eps=self.eps,
            )
        return scaled  # type: ignore[no-any-return]  # torch.ops is untyped

    def take_updated(self) -> tuple[Tensor, ...]:
        """Return mean and variance after the step, and forget them."""
        updated, self._updated, self.running = self._updated, (), None
        return updated


def moved_statistics(
    running: tuple[Tensor, Tensor],
    batch: tuple[Tensor, Tensor],
    *,
    count: int,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Return the running mean and variance after a step.

    Args:
        running: mean and variance before the step, each (channels,).
        batch: mean and 1 / standard deviation of the batch, likewise.
        count: values of a channel in the batch.
        momentum: share of the batch's statistics in the running ones.
        eps: what was added to the batch's variance.
    """
    mean, inverse = batch
    # As PyTorch does, the running variance is the unbiased one.
    variance = (1 / (inverse * inverse) - eps) * (count / max(1, count - 1))
    return (
        running[0] * (1 - momentum) + mean * momentum,
        running[1] * (1 - momentum) + variance * momentum,
    )


def replace_training_norms(network: nn.Module) -> dict[str, TrainingNorm]:
    """Replace the batch normalisation layers that are in training mode, and return them by name.

    Raises:
        ExportError: if one has a cumulative average in place of a momentum.
    """
    replaced: dict[str, TrainingNorm] = {}
    made: dict[int, TrainingNorm] = {}
    for name, layer in list(_training_norms(network)):
        if id(layer) not in made:  # a layer that is used twice stays one
            replaced[name] = made[id(layer)] = TrainingNorm(layer)
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, made[id(layer)])
    return replaced


def statistics_names(network: nn.Module) -> list[str]:
    """Return the names of the running statistics that a training step moves, in order.

    Raises:
        ExportError: if a layer has a cumulative average in place of a momentum.
    """
    tracked = {id(one): name for name, one in reversed(list(_training_norms(network)))}
    names = [
        name
        for name, layer in _training_norms(network)
        if tracked[id(layer)] == name and layer.running_mean is not None
    ]
    return [f"{name}.{kind}" for name in names for kind in ("running_mean", "running_var")]


def _training_norms(
    network: nn.Module,
) -> Iterator[tuple[str, nn.modules.batchnorm._BatchNorm]]:
    """Yield the batch normalisation layers that use the batch's statistics, under all names."""
    for name, layer in network.named_modules(remove_duplicate=False):
        if not isinstance(layer, _BATCH_NORM) or not (layer.training or layer.running_mean is None):
            continue
        if layer.momentum is None and layer.running_mean is not None:
            raise ExportError(
                f"{name!r} averages its statistics over all steps (momentum=None), which a program "
                "for ExecuTorch can't: give the layer a momentum"
            )
        yield name, layer


def batch_norm_backward(  # noqa: PLR0917  # the operator's own arguments
    gradient: Tensor,
    inputs: Tensor,
    weight: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    mean: Tensor,
    inverse: Tensor,
    train: bool,  # noqa: FBT001
    eps: float,
    wanted: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Decompose ``native_batch_norm_backward``.

    With n values a channel, the gradient of the input is linear in input and output gradient, so
    that it takes no normalised copy of the input: ``a * gradient + b * inputs + c`` with a number
    for each channel (Ioffe and Szegedy, 2015, section 3). In evaluation mode only ``a`` is left.

    Args:
        gradient: of the output, (batch, channels, ...).
        inputs: (batch, channels, ...).
        weight: scale, (channels,); None is 1.
        running_mean: running mean, (channels,), which evaluation mode uses.
        running_var: running variance, likewise.
        mean: mean of the batch, (channels,); empty in evaluation mode.
        inverse: 1 / standard deviation of the batch, (channels,); likewise.
        train: whether the batch's own statistics were used.
        eps: what is added to the variance.
        wanted: which of the three gradients are needed.

    Returns:
        Gradients of input, weight and bias.
    """
    if not train:
        assert running_mean is not None  # noqa: S101  # a layer without them uses the batch's
        assert running_var is not None  # noqa: S101
        mean, inverse = running_mean, torch.rsqrt(running_var + eps)
    over = [0, *range(2, inputs.dim())]
    count = inputs.numel() // inputs.shape[1]

    def spread(values: Tensor) -> Tensor:
        return values.view([1, -1] + [1] * (inputs.dim() - 2))

    total = torch.sum(gradient, over)
    aligned = torch.sum(gradient * (inputs - spread(mean)), over)
    found: Tensor | None = None
    if wanted[0]:
        a = inverse if weight is None else inverse * weight
        found = gradient * spread(a)
        if train:
            b = -a * inverse * inverse * aligned / count
            c = -a * total / count - b * mean
            found = found + inputs * spread(b) + spread(c)
    return found, aligned * inverse if wanted[1] else None, total if wanted[2] else None
