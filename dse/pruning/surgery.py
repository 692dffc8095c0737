"""Removing channels for good: a new network that is physically smaller."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dse.errors import PruningError
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

    The same layout that sizes the memory model's networks says which positions of which tensors a
    channel takes, so the two can't disagree.

    Args:
        network: the unpruned network; left as it is.
        groups: its channel groups.
        kept: (groups,) channels to keep.
        importance: scores by group name; without it the first channels stay, which is enough to
            rebuild a network whose tensors are then loaded.

    Raises:
        PruningError: a count is no positive multiple of its group's, or above the full count.
    """
    check_counts(groups, kept)
    masks: dict[tuple[str, Dimension], NDArray[np.bool_]] = {}
    for group, count in zip(groups, kept, strict=True):
        if count > group.channels:
            raise PruningError(f"{group.name}: {count} channels can't be kept of {group.channels}")
        scores = None if importance is None else importance[group.name]
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
        for axis, positions in selections.get(name, {}).items():
            result = result.index_select(axis, torch.from_numpy(positions).to(tensor.device))
        return result.clone()

    pruned = copy_with_tensors(network, cut)
    set_attributes(pruned, network, groups, kept)
    return pruned


def keep_indices(
    group: ChannelGroup, kept: int, *, scores: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Which channels of a group stay, in ascending order.

    Where grouped convolutions divide the channels into blocks, every block keeps the same places,
    chosen by the sum of their scores over the blocks.

    Args:
        group: the channel group.
        kept: how many stay.
        scores: (channels,) importance; the first channels stay if None.
    """
    blocks = group.multiple
    width = group.channels // blocks
    if scores is None:
        places = np.arange(kept // blocks)
    else:
        by_place = scores.reshape(blocks, width).sum(axis=0)
        places = np.sort(np.argsort(-by_place, kind="stable")[: kept // blocks])
    return np.asarray(
        (np.arange(blocks)[:, None] * width + places[None, :]).ravel(), dtype=np.int64
    )


def _selections(
    network: nn.Module, masks: dict[tuple[str, Dimension], NDArray[np.bool_]]
) -> dict[str, dict[int, NDArray[np.int64]]]:
    """Positions to keep, by tensor name and axis."""
    names = _shared_names(network)
    selections: dict[str, dict[int, NDArray[np.int64]]] = {}
    for (module, dimension), mask in masks.items():
        for axis in channels_of(network, module, dimension).axes:
            blocks = mask.reshape(axis.blocks, -1)
            if (blocks != blocks[0]).any():
                raise PruningError(
                    f"{module}: its {axis.blocks} convolution groups would keep other places each"
                )
            name = names[f"{module}.{axis.tensor}".strip(".")]
            selections.setdefault(name, {})[axis.axis] = np.flatnonzero(blocks[0])
    return selections


def _shared_names(network: nn.Module) -> dict[str, str]:
    """Every tensor name to the first name of the same tensor."""
    first: dict[int, str] = {}
    names = {}
    for kind in (network.named_parameters, network.named_buffers):
        for name, tensor in kind(remove_duplicate=False):
            names[name] = first.setdefault(id(tensor), name)
    return names
