"""Remove channels physically: build a new, smaller network."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dse.errors import PruningError
from dse.networks.tied import first_names
from dse.pruning.channel_group import ChannelGroup, Dimension
from dse.pruning.importance import Importance
from dse.pruning.layout import channels_of
from dse.pruning.resize import check_counts, copy_with_tensors, set_attributes


def prune(
    network: nn.Module,
    *,
    groups: Sequence[ChannelGroup],
    kept: Sequence[int],
    importance: Importance | None = None,
) -> nn.Module:
    """Copy a network without its least important channels.

    The positions of a channel in each tensor come from the layout that also sizes the memory
    model's networks, so both always agree.

    Args:
        network: The unpruned network. It is not changed.
        groups: Its channel groups.
        kept: Number of channels to keep, shape (groups,).
        importance: Scores by group name. If None, the first channels of each group are kept, which
            suffices to rebuild a network whose tensors are loaded afterwards.

    Raises:
        PruningError: If a count is not a positive multiple of its group's ``multiple`` or exceeds
            the full count, or the importance belongs to other groups.
    """
    check_counts(groups, kept)
    masks: dict[tuple[str, Dimension], NDArray[np.bool_]] = {}
    for group, count in zip(groups, kept, strict=True):
        if count > group.channels:
            raise PruningError(f"{group.name}: {count} channels can't be kept of {group.channels}")
        scores = None if importance is None else _scores(importance, group)
        removed = np.setdiff1d(np.arange(group.channels), keep_indices(group, count, scores=scores))
        for member in group.members:
            key = (member.module, member.dimension)
            if key not in masks:
                masks[key] = np.ones(channels_of(network, *key).width, dtype=np.bool_)
            starts = member.start + removed * member.span
            masks[key][(starts[:, None] + np.arange(member.span)).ravel()] = False
    selections = _selections(network, masks)

    def cut(name: str, tensor: Tensor) -> Tensor:
        result = tensor.detach()
        # Select axis 0 last: the blocks of a grouped convolution lie along it with all their
        # outputs.
        for axis, places in sorted(selections.get(name, {}).items(), reverse=True):
            result = _select(result, axis, torch.from_numpy(places).to(tensor.device))
        return result.clone()

    pruned = copy_with_tensors(network, cut)
    set_attributes(pruned, network, groups, kept)
    return pruned


def keep_indices(
    group: ChannelGroup, kept: int, *, scores: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Return the channels of a group to keep, in ascending order.

    If grouped convolutions divide the channels into blocks, every block keeps equally many: its own
    most important ones.

    Args:
        group: The channel group.
        kept: Number of channels to keep.
        scores: Importance, shape (channels,). If None, the first channels are kept.
    """
    blocks = group.multiple
    width = group.channels // blocks
    if scores is None:
        places = np.arange(kept // blocks)[None, :]
    else:
        order = np.argsort(-scores.reshape(blocks, width), axis=1, kind="stable")
        places = np.sort(order[:, : kept // blocks], axis=1)
    return np.asarray((np.arange(blocks)[:, None] * width + places).ravel(), dtype=np.int64)


def _scores(importance: Importance, group: ChannelGroup) -> NDArray[np.float64]:
    scores = importance.get(group.name)
    if scores is None or scores.shape != (group.channels,):
        raise PruningError(
            f"{group.name}: importance gives no score for each of its {group.channels} channels; "
            "compute it for these very groups"
        )
    return scores


def _selections(
    network: nn.Module, masks: dict[tuple[str, Dimension], NDArray[np.bool_]]
) -> dict[str, dict[int, NDArray[np.int64]]]:
    """Return positions to keep, shape (blocks, kept per block), by tensor name and axis."""
    names = first_names(network)
    selections: dict[str, dict[int, NDArray[np.int64]]] = {}
    for (module, dimension), mask in masks.items():
        for axis in channels_of(network, module, dimension).axes:
            places = np.nonzero(mask.reshape(axis.blocks, -1))[1].reshape(axis.blocks, -1)
            name = names[f"{module}.{axis.tensor}".strip(".")]
            selections.setdefault(name, {})[axis.axis] = places
    return selections


def _select(tensor: Tensor, axis: int, places: Tensor) -> Tensor:
    """Keep positions along an axis: the same for all, or separately for each block of axis 0."""
    blocks = tensor.chunk(len(places))
    return torch.cat([b.index_select(axis, p) for b, p in zip(blocks, places, strict=True)])
