"""Batch norm's running statistics: recomputes them, and chooses between old and new ones.

A pretrained network's statistics come from far more images than a target task has, and its frozen
features depend on them; averages over a few target images cost several points of accuracy. Pruning
changes the inputs of norms, so there recomputed statistics may be better. Which ones are is decided
on images that neither were computed from.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dse.data.parts import Batch
from dse.errors import TrainingError
from dse.networks.forward import evaluating, run
from dse.pruning.channel_group import ChannelGroup
from dse.pruning.importance import Importance
from dse.pruning.surgery import keep_indices
from dse.step.single_values import single_values_explained

SHARES = (0.0, 0.5, 1.0)  # shares of the recomputed statistics that are tried

Norms = Mapping[str, _BatchNorm]
J = TypeVar("J")
Moments = dict[str, tuple[Tensor, ...]]

_SAME = 1e-3  # tolerance relative to the largest input: kernels of other sizes round differently
SINGLE_VALUES_FIX = "raise training.batch_size or data.image_size"


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The statistics that were chosen.

    Attributes:
        share: share of the recomputed statistics: 0 for the network's own, 1 for recomputed ones.
        images_forward: images that went forward, without those of the loss.
    """

    share: float
    images_forward: int


def running_norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """Return all batch norms of a network that hold running statistics, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


def uncomputed(norms: Norms) -> dict[str, _BatchNorm]:
    """Return the norms with initial statistics: mean 0 and variance 1 in every channel."""
    return {
        name: norm
        for name, norm in norms.items()
        if not bool(_mean(norm).any()) and bool((_variance(norm) == 1).all())
    }


def recalibrate_batch_norm(
    network: nn.Module, batches: Iterable[Batch], *, norms: Collection[nn.Module] | None = None
) -> int:
    """Replace running statistics by averages over batches that go forward once.

    Every batch has the same weight, so nothing of the old statistics remains.

    Args:
        network: network to change in place; modes, momenta and parameters are restored.
        batches: (images, labels) on the network's device; labels aren't read.
        norms: norms whose statistics are replaced, while all others use the statistics they have;
            all norms if None.

    Returns:
        Number of images that went forward; 0 if there are no such norms.

    Raises:
        TrainingError: if there are no batches, or one is too small for statistics.
    """
    wanted = None if norms is None else set(map(id, norms))
    chosen = [
        norm for norm in running_norms(network).values() if wanted is None or id(norm) in wanted
    ]
    if not chosen:
        return 0
    images_forward = 0
    momenta = [norm.momentum for norm in chosen]
    with (
        evaluating(network),
        torch.no_grad(),
        single_values_explained(TrainingError, fix=SINGLE_VALUES_FIX),
    ):
        try:
            for norm in chosen:
                norm.reset_running_stats()
                norm.momentum = None  # PyTorch's setting for a cumulative average
                norm.train()
            for images, _ in batches:
                run(network, images)
                images_forward += len(images)
        finally:
            for norm, momentum in zip(chosen, momenta, strict=True):
                norm.momentum = momentum
                norm.eval()
    if not images_forward:
        raise TrainingError("no batches to compute batch-norm statistics from: give more images")
    return images_forward


def settle_statistics(
    network: nn.Module,
    batches: Iterable[Batch],
    *,
    norms: Norms,
    judge: Callable[[], J],
    best: Callable[[Sequence[J]], int],
    shares: Sequence[float] = SHARES,
) -> Settled:
    """Keep a network's statistics, recompute them, or mix both, whichever is judged best.

    Args:
        network: network to change in place; only the statistics of `norms` change.
        batches: see `recalibrate_batch_norm`.
        norms: norms whose statistics are chosen, by name.
        judge: judges the network's current state, on images of none of the batches.
        best: returns the index of the best of these judgements, one for each share.
        shares: shares of the recomputed statistics to try.

    Raises:
        TrainingError: see `recalibrate_batch_norm`.
    """
    if not norms:
        return Settled(share=0.0, images_forward=0)
    own = _moments(norms)
    images_forward = recalibrate_batch_norm(network, batches, norms=norms.values())
    new = _moments(norms)
    found = []
    for share in shares:
        _put(norms, own, new, share)
        found.append(judge())
    chosen = shares[best(found)]
    _put(norms, own, new, chosen)
    return Settled(share=chosen, images_forward=images_forward)


def changed_norms(
    whole: nn.Module,
    pruned: nn.Module,
    images: Tensor,
    *,
    groups: Sequence[ChannelGroup],
    kept: Sequence[int],
    importance: Importance,
) -> dict[str, _BatchNorm]:
    """Return the norms of a pruned network whose inputs differ from those in the whole network.

    Channels that a norm itself lost are ignored, because its other channels may be unchanged.

    Args:
        whole: the unpruned network on the images' device; left unchanged.
        pruned: the pruned network, whose norms have the whole network's statistics.
        images: (1 or more, channels, height, width); few are enough.
        groups: channel groups.
        kept: channels that each group keeps, (groups,).
        importance: the channel importance by which they were chosen.
    """
    norms = running_norms(pruned)
    if not norms:
        return {}
    before = _norm_inputs(whole, images)
    after = _norm_inputs(pruned, images)
    places = _kept_channels(before, groups, kept, importance)
    return {
        name: norm
        for name, norm in norms.items()
        if name in after and not _same(before.get(name), after[name], places.get(name))
    }


def _same(before: Tensor | None, after: Tensor, places: Tensor | None) -> bool:
    if before is None:
        return False
    if places is not None:
        before = before.index_select(1, places.to(before.device))
    if before.shape != after.shape:
        return False
    return bool((before - after).abs().max() <= _SAME * before.abs().max())


def _norm_inputs(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the input of each norm's first call in eval mode, by name."""
    found: dict[str, Tensor] = {}

    def note(name: str, given: Tensor) -> None:
        if name not in found:
            found[name] = given.clone()  # an in-place activation may overwrite it later

    with ExitStack() as stack:
        for name, norm in running_norms(network).items():
            hook = norm.register_forward_pre_hook(
                lambda _norm, args, name=name: note(name, args[0])
            )
            stack.callback(hook.remove)
        stack.enter_context(evaluating(network))
        stack.enter_context(torch.no_grad())
        run(network, images)
    return found


def _kept_channels(
    inputs: Mapping[str, Tensor],
    groups: Sequence[ChannelGroup],
    kept: Sequence[int],
    importance: Importance,
) -> dict[str, Tensor]:
    """Return the positions of the channels that each norm keeps, for norms that lost some."""
    masks: dict[str, Tensor] = {}
    for group, count in zip(groups, kept, strict=True):
        if count == group.channels:
            continue
        stay = torch.zeros(group.channels, dtype=torch.bool)
        stay[torch.from_numpy(keep_indices(group, count, scores=importance[group.name]))] = True
        for member in group.members:
            if member.module in inputs:
                width = inputs[member.module].shape[1]
                mask = masks.setdefault(member.module, torch.ones(width, dtype=torch.bool))
                own = stay.repeat_interleave(member.span)
                mask[member.start : member.start + len(own)] = own
    return {name: mask.nonzero().ravel() for name, mask in masks.items()}


def _moments(norms: Norms) -> Moments:
    return {
        name: tuple(buffer.detach().clone() for buffer in _buffers(norm))
        for name, norm in norms.items()
    }


def _put(norms: Norms, own: Moments, new: Moments, share: float) -> None:
    """Set each norm's statistics to a mixture: own * (1 - share) + new * share."""
    for name, norm in norms.items():
        for buffer, mine, fresh in zip(_buffers(norm), own[name], new[name], strict=True):
            if share in (0, 1) or not buffer.is_floating_point():  # the batch count isn't mixed
                buffer.copy_(fresh if share else mine)
            else:
                buffer.copy_(mine.lerp(fresh, share))


def _buffers(norm: _BatchNorm) -> tuple[Tensor, ...]:
    counted = norm.num_batches_tracked
    return (_mean(norm), _variance(norm), *(() if counted is None else (counted,)))


def _mean(norm: _BatchNorm) -> Tensor:
    if norm.running_mean is None:
        raise TypeError("a norm without running statistics")
    return norm.running_mean


def _variance(norm: _BatchNorm) -> Tensor:
    if norm.running_var is None:
        raise TypeError("a norm without running statistics")
    return norm.running_var
