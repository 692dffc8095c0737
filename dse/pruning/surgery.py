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
        PruningError: a count is no positive multiple of its group's, or above the full count; or
            the importance is of other groups.
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
        # Axis 0 last: until then every block of a grouped convolution has all its outputs.
        for axis, places in sorted(selections.get(name, {}).items(), reverse=True):
            result = _select(result, axis, torch.from_numpy(places).to(tensor.device))
        return result.clone()

    pruned = copy_with_tensors(network, cut)
    set_attributes(pruned, network, groups, kept)
    return pruned


def keep_indices(
    group: ChannelGroup, kept: int, *, scores: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Which channels of a group stay, in ascending order.

    Where grouped convolutions divide the channels into blocks, every block keeps as many as the
    others: its own most important ones.

    Args:
        group: the channel group.
        kept: how many stay.
        scores: (channels,) importance; the first channels stay if None.
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
    """Positions to keep within each block: (blocks, kept of each), by tensor name and axis."""
    names = _shared_names(network)
    selections: dict[str, dict[int, NDArray[np.int64]]] = {}
    for (module, dimension), mask in masks.items():
        for axis in channels_of(network, module, dimension).axes:
            places = np.nonzero(mask.reshape(axis.blocks, -1))[1].reshape(axis.blocks, -1)
            name = names[f"{module}.{axis.tensor}".strip(".")]
            selections.setdefault(name, {})[axis.axis] = places
    return selections


def _select(tensor: Tensor, axis: int, places: Tensor) -> Tensor:
    """Keep places along an axis: the same everywhere, or each block of axis 0 its own."""
    blocks = tensor.chunk(len(places))
    return torch.cat([b.index_select(axis, p) for b, p in zip(blocks, places, strict=True)])


def _shared_names(network: nn.Module) -> dict[str, str]:
    """Every tensor name to the first name of the same tensor."""
    first: dict[int, str] = {}
    names = {}
    for kind in (network.named_parameters, network.named_buffers):
        for name, tensor in kind(remove_duplicate=False):
            names[name] = first.setdefault(id(tensor), name)
    return names
