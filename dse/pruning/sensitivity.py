"""Sensitivity of the loss on the user's data to the removal of each channel."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dse.errors import PruningError
from dse.networks.forward import all_trainable, evaluating
from dse.networks.logits import main_logits
from dse.pruning.channel_group import ChannelGroup, Member
from dse.user_code import guarded

Batches = Iterable[tuple[Tensor, Tensor]]
Total = Callable[[Tensor, Tensor], Tensor]


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of a batch's cross-entropies."""
    return functional.cross_entropy(logits, labels, reduction="sum")


def weight_gradients(
    network: nn.Module, batches: Batches, *, total: Total = summed_cross_entropy
) -> dict[str, Tensor]:
    """Return the gradient of the mean loss over all batches, for each parameter.

    The network runs in eval mode (no dropout, running statistics) and is not changed.

    Args:
        network: Network on the images' device.
        batches: Pairs of images and labels.
        total: Summed loss of a batch's logits and labels.

    Returns:
        Gradients by parameter name. Parameters that do not affect the output are left out.

    Raises:
        PruningError: If there are no batches.
    """
    sums: dict[str, Tensor] = {}
    images_seen = 0
    with evaluating(network), all_trainable(network):
        # A parameter shared by several modules has its gradient listed under each of its names.
        parameters = network.named_parameters(remove_duplicate=False)
        named = {name: parameter for name, parameter in parameters if parameter.requires_grad}
        for images, labels in batches:
            found = _derivatives(network, images, labels, list(named.values()), total)
            for name, gradient in zip(named, found, strict=True):
                if gradient is not None:
                    sums[name] = sums[name] + gradient if name in sums else gradient
            images_seen += len(images)
    _refuse_nothing(images_seen)
    return {name: total / images_seen for name, total in sums.items()}


def fisher_information(
    network: nn.Module,
    groups: Sequence[ChannelGroup],
    batches: Batches,
    *,
    total: Total = summed_cross_entropy,
) -> dict[str, NDArray[np.float64]]:
    """Mean squared derivative of each image's loss by a factor on a channel (Liu et al., 2021).

    A channel's factor multiplies it in front of every layer that reads it, so the derivative is
    that of removing the whole channel wherever it goes. Half its mean square approximates the
    increase of the loss (Theis et al., 2018). The network runs in eval mode, as for
    `weight_gradients`.

    Args:
        network: Network on the images' device.
        groups: Channel groups.
        batches: Pairs of images and labels.
        total: Summed loss of a batch's logits and labels.

    Returns:
        Scores, shape (channels,), by group name.

    Raises:
        PruningError: If there are no batches, or no layer reads a group's channels.
    """
    readers = {
        group.name: [one for one in group.members if one.dimension == "in"] for group in groups
    }
    for name, members in readers.items():
        if not members:
            raise PruningError(f"{name}: no layer reads these channels; use importance 'l1'")
    squares = {group.name: np.zeros(group.channels) for group in groups}
    images_seen = 0
    with evaluating(network), all_trainable(network), ExitStack() as stack:
        factors: dict[str, Tensor] = {}
        by_module: dict[str, list[tuple[str, Member]]] = {}
        for name, members in readers.items():
            for member in members:
                by_module.setdefault(member.module, []).append((name, member))
        for module, reads in by_module.items():
            hook = network.get_submodule(module).register_forward_pre_hook(
                lambda module, args, reads=reads: (
                    _scaled(args[0], factors, reads, last=isinstance(module, nn.Linear)),
                    *args[1:],
                )
            )
            stack.callback(hook.remove)
        for images, labels in batches:
            for group in groups:
                shape = (len(images), group.channels)
                factors[group.name] = images.new_ones(shape, requires_grad=True)
            inputs = [factors[group.name] for group in groups]
            found = _derivatives(network, images, labels, inputs, total)
            for group, gradient in zip(groups, found, strict=True):
                if gradient is not None:
                    squares[group.name] += gradient.double().square().sum(dim=0).cpu().numpy()
            images_seen += len(images)
    _refuse_nothing(images_seen)
    return {name: total / images_seen for name, total in squares.items()}


def _derivatives(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    inputs: Sequence[Tensor],
    total: Total,
) -> tuple[Tensor | None, ...]:
    """Return the derivatives of the summed loss by each input; None if it has no effect.

    Raises:
        NetworkError: If the network's code raises an exception.
    """
    with guarded(network, f"has no gradients on images of shape {tuple(images.shape)}"):
        logits = main_logits(network(images))
        loss = total(logits, labels)
        return torch.autograd.grad(loss, inputs, allow_unused=True)


def _scaled(
    given: Tensor, factors: dict[str, Tensor], reads: Sequence[tuple[str, Member]], *, last: bool
) -> Tensor:
    """Multiply each channel of a layer's input by its factor.

    Args:
        given: Input, shape (batch, positions, ...), or (batch, ..., positions) if ``last``. Its
            batch may be a multiple of the factors', as where images are divided into windows.
        factors: Factors of each group, shape (batch, channels).
        reads: Pairs of a group's name and the positions of its channels.
        last: Whether the positions are the last axis.
    """
    if last and given.dim() > 2:  # noqa: PLR2004  # tokens
        return _scaled(given.movedim(-1, 1), factors, reads, last=False).movedim(1, -1)
    images = len(next(iter(factors.values())))
    pieces = []
    reached = 0
    for name, member in sorted(reads, key=lambda read: read[1].start):
        pieces.append(given.new_ones(len(given), member.start - reached))
        factor = factors[name].repeat_interleave(len(given) // images, dim=0)
        pieces.append(factor.repeat_interleave(member.span, dim=1))
        reached = member.start + pieces[-1].shape[1]
    pieces.append(given.new_ones(len(given), given.shape[1] - reached))
    return given * torch.cat(pieces, dim=1).reshape(*given.shape[:2], *[1] * (given.dim() - 2))


def _refuse_nothing(images: int) -> None:
    if not images:
        raise PruningError("no images to judge channels by: give more, or use importance 'l1'")
