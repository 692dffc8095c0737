"""Importance of each channel of a group. The least important channels are removed first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from dse import names
from dse.errors import PruningError
from dse.pruning.channel_group import ChannelGroup, Member, is_axis, owner_of
from dse.pruning.layout import channels_of
from dse.pruning.sensitivity import (
    Batches,
    Total,
    fisher_information,
    summed_cross_entropy,
    weight_gradients,
)
from dse.registry import Registry

Importance = dict[str, NDArray[np.float64]]
"""Scores, shape (channels,), by group name. Larger is more important."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Inputs of a criterion other than the network.

    Attributes:
        seed: Seed of random criteria.
        batches: Pairs of images and labels from the user's data, on the network's device. None if
            the criterion needs no data.
        total: Summed loss of a batch's logits and labels.
    """

    seed: int = 0
    batches: Batches | None = None
    total: Total = summed_cross_entropy


@dataclass(frozen=True, kw_only=True)
class CriterionKind:
    """Registry entry of an importance criterion.

    Attributes:
        score: Function that scores every channel of every group.
        needs_data: Whether the function reads the batches of its evidence.
    """

    score: Callable[[nn.Module, Sequence[ChannelGroup], Evidence], Importance]
    needs_data: bool = False


CRITERIA: Registry[CriterionKind] = Registry("importance", names.CRITERIA)


def group_importance(
    network: nn.Module,
    groups: Sequence[ChannelGroup],
    *,
    criterion: str = "l1",
    seed: int = 0,
    batches: Batches | None = None,
    total: Total = summed_cross_entropy,
) -> Importance:
    """Score the channels of every group.

    Args:
        network: The unpruned network that the groups were found in.
        groups: Channel groups.
        criterion: How to score a channel. ``l1`` and ``l2``: the norm of its weights in each weight
            tensor that it runs through, scaled to mean 1 and averaged over the tensors (Li et al.,
            2017, over coupled layers). ``batch-norm-scale``: the absolute scale of its
            normalisation (Liu et al., 2017). ``taylor``: as ``l1``, with each weight multiplied by
            the gradient of the loss (Molchanov et al., 2019). ``fisher``: the mean square of the
            derivative of each image's loss (see ``fisher_information``). ``random``: random scores,
            as a control.
        seed: Seed of ``random``.
        batches: Pairs of images and labels, for ``taylor`` and ``fisher``. The network's output
            layer should already be trained on these labels.
        total: Summed loss of a batch's logits and labels.

    Returns:
        Scores, shape (channels,), by group name. Larger is more important.

    Raises:
        ConfigError: If the criterion is unknown.
        PruningError: If the criterion needs batches that are not given, or a group has no tensor
            that the criterion applies to.
    """
    kind = CRITERIA[criterion]
    if kind.needs_data and batches is None:
        raise PruningError(f"importance {criterion!r} is computed from images: pass batches")
    return kind.score(network, groups, Evidence(seed=seed, batches=batches, total=total))


def _random(_network: nn.Module, groups: Sequence[ChannelGroup], evidence: Evidence) -> Importance:
    generator = np.random.default_rng(evidence.seed)
    return {group.name: generator.random(group.channels) for group in groups}


def _fisher(network: nn.Module, groups: Sequence[ChannelGroup], evidence: Evidence) -> Importance:
    return fisher_information(network, groups, evidence.batches or (), total=evidence.total)


def _taylor(network: nn.Module, groups: Sequence[ChannelGroup], evidence: Evidence) -> Importance:
    gradients = weight_gradients(network, evidence.batches or (), total=evidence.total)
    return _by_weights(network, groups, criterion="taylor", gradients=gradients)


def _weights_alone(
    criterion: str,
) -> Callable[[nn.Module, Sequence[ChannelGroup], Evidence], Importance]:
    def score(
        network: nn.Module, groups: Sequence[ChannelGroup], _evidence: Evidence
    ) -> Importance:
        return _by_weights(network, groups, criterion=criterion, gradients={})

    return score


def _by_weights(
    network: nn.Module,
    groups: Sequence[ChannelGroup],
    *,
    criterion: str,
    gradients: Mapping[str, Tensor],
) -> Importance:
    """Average the scores of every weight tensor of a group, each scaled to mean 1."""
    scores: Importance = {}
    for group in groups:
        layers = [each for each in group.members if not is_axis(each)]
        bare = [each for each in group.members if is_axis(each)]
        for members in (layers, bare):  # weights outside layers count where there are no others
            rows = [
                row
                for member in members
                for row in _member_scores(network, group, member, criterion, gradients)
            ]
            if rows:
                break
        if not rows:
            raise PruningError(
                f"{group.name}: no tensor of this channel group has what importance "
                f"{criterion!r} reads; use 'l1'"
            )
        scores[group.name] = np.mean([row / max(row.mean(), 1e-12) for row in rows], axis=0)
    return scores


def _member_scores(
    network: nn.Module,
    group: ChannelGroup,
    member: Member,
    criterion: str,
    gradients: Mapping[str, Tensor],
) -> list[NDArray[np.float64]]:
    """Score the group's channels by each weight tensor of one member: arrays of (channels,)."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    module = network.get_submodule(owner_of(network, member.module))
    normalises = isinstance(module, (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm))
    weighs = isinstance(module, (_ConvNd, nn.Linear)) or is_axis(member)
    if not (normalises if criterion == "batch-norm-scale" else weighs):
        return []
    rows = []
    for axis in channels_of(network, member.module, member.dimension).axes:
        name = f"{member.module}.{axis.tensor}".strip(".")
        parameter = parameters.get(name)
        named = is_axis(member) or name.endswith("weight")
        if parameter is None or not named or axis.blocks > 1:
            continue
        if is_axis(member) and parameter.dim() == 1 and criterion != "batch-norm-scale":
            continue  # a bias
        weight = parameter.detach()
        if criterion == "taylor":
            if name not in gradients:
                continue
            weight = weight * gradients[name]
        rows.append(_by_channel(weight.movedim(axis.axis, 0), group, member, criterion))
    return rows


def _by_channel(
    weight: Tensor, group: ChannelGroup, member: Member, criterion: str
) -> NDArray[np.float64]:
    """Reduce weights, shape (positions, ...), to their norm per channel, shape (channels,)."""
    first, last = member.start, member.start + group.channels * member.span
    own = weight[first:last].unsqueeze(-1).float()  # gives 1-D scales an axis to sum over, too
    sizes = own.square() if criterion == "l2" else own.abs()
    by_position = sizes.sum(dim=tuple(range(1, own.dim())))
    sums: NDArray[np.float64] = by_position.double().cpu().numpy()
    by_channel: NDArray[np.float64] = sums.reshape(group.channels, member.span).sum(axis=1)
    return by_channel**0.5 if criterion == "l2" else by_channel


for _name in ("l1", "l2", "batch-norm-scale"):
    CRITERIA.register(_name, CriterionKind(score=_weights_alone(_name)))
CRITERIA.register("taylor", CriterionKind(score=_taylor, needs_data=True))
CRITERIA.register("fisher", CriterionKind(score=_fisher, needs_data=True))
CRITERIA.register("random", CriterionKind(score=_random))
