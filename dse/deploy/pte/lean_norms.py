"""Batch normalisation of a lean step, with as few buffers of a layer's size as possible.

A lean step has few tensors at once, so that the temporaries of one operator count. ExecuTorch's
normalisation by given statistics is one operator that scales and shifts every channel, so that the
backward pass takes no buffer for each of its products.
"""

import torch
from torch import Tensor

from dse.deploy.pte.normalisation import batch_norm_backward, moved_statistics

_aten = torch.ops.aten


def batch_norm(  # noqa: PLR0917  # the operator's own arguments
    inputs: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,  # noqa: FBT001
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Decompose ``native_batch_norm``, which moves the running statistics in place.

    Args:
        inputs: (batch, channels, ...).
        weight: scale, (channels,); None is 1.
        bias: shift, (channels,); None is 0.
        running_mean: running mean, (channels,), which training changes in place; perhaps None.
        running_var: running variance, likewise.
        training: whether the batch's own statistics are used.
        momentum: share of the batch's statistics in the running ones.
        eps: what is added to the variance.

    Returns:
        The normalised values, and mean and 1 / standard deviation of the batch.
    """
    if not training:
        normalise = _aten._native_batch_norm_legit_no_training  # noqa: SLF001  # no public name
        given = (inputs, weight, bias, running_mean, running_var, momentum, eps)
        return normalise(*given)  # type: ignore[no-any-return]  # torch.ops is untyped
    by_batch = _aten._native_batch_norm_legit.no_stats  # noqa: SLF001
    scaled, mean, inverse = by_batch(inputs, weight, bias, True, momentum, eps)  # noqa: FBT003
    if running_mean is not None and running_var is not None:
        moved = moved_statistics(
            (running_mean, running_var),
            (mean, inverse),
            count=inputs.numel() // inputs.shape[1],
            momentum=momentum,
            eps=eps,
        )
        running_mean.copy_(moved[0])
        running_var.copy_(moved[1])
    return scaled, mean, inverse


def lean_batch_norm_backward(  # noqa: PLR0917  # the operator's own arguments
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
    """Decompose ``native_batch_norm_backward``; see `batch_norm_backward`.

    At most two buffers of the input's size live beside input and output gradient.
    """
    if not train:
        return batch_norm_backward(
            gradient, inputs, weight, running_mean, running_var, mean, inverse, train, eps, wanted
        )
    over = [0, *range(2, inputs.dim())]
    count = inputs.numel() // inputs.shape[1]
    total = torch.sum(gradient, over)
    aligned = torch.sum(gradient * _scaled(inputs, None, None, mean), over)
    found: Tensor | None = None
    if wanted[0]:
        a = inverse if weight is None else inverse * weight
        b = -a * inverse * inverse * aligned / count
        of_inputs = _scaled(inputs, b, -a * total / count, mean)
        found = of_inputs + _scaled(gradient, a, None, torch.zeros_like(mean))
    return found, aligned * inverse if wanted[1] else None, total if wanted[2] else None


def _scaled(values: Tensor, scale: Tensor | None, shift: Tensor | None, centre: Tensor) -> Tensor:
    """Return ``(values - centre) * scale + shift`` for each channel, in one operator."""
    normalise = _aten._native_batch_norm_legit_no_training  # noqa: SLF001  # no public name
    found: Tensor = normalise(values, scale, shift, centre, torch.ones_like(centre), 0.0, 0.0)[0]
    return found
