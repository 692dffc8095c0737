"""Masking, the truth that pruning is compared with: the whole network reads no removed channel."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from dse.networks.copies import copied
from dse.pruning.channel_group import ChannelGroup
from dse.pruning.layout import channels_of

Kept = Mapping[str, Sequence[int]]
"""For each group, by name, the channels that stay, ascending."""


def masked(
    network: nn.Module, pruned: nn.Module, groups: Sequence[ChannelGroup], kept: Kept
) -> nn.Module:
    """Copy a network with zero weights wherever a removed channel is read.

    A layer that normalises channels by one another normalises those that stay, as its pruned
    counterpart does.

    Args:
        network: The unpruned network.
        pruned: The pruned network, whose normalisation layers are used.
        groups: All channel groups of the network.
        kept: The channels that stay.
    """
    result = copied(network)
    gone: dict[tuple[str, object, bool], set[int]] = {}
    for group in groups:
        removed = sorted(set(range(group.channels)) - set(kept[group.name]))
        for member in group.members:
            positions = gone.setdefault((member.module, member.dimension, member.reads), set())
            positions.update(p for channel in removed for p in member.positions(channel))
    with torch.no_grad():
        for (name, dimension, reads), positions in gone.items():
            if not positions:
                continue
            index = torch.tensor(sorted(positions))
            if dimension == "in":
                _disconnect(result, name, index)
            elif reads:
                result.get_parameter(name).index_fill_(dimension, index, 0)
            elif dimension == "both":
                module = result.get_submodule(name)
                if isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
                    width = channels_of(network, name, "both").width
                    stay = torch.tensor(sorted(set(range(width)) - positions))
                    module.forward = _Selecting(pruned.get_submodule(name), stay, width)
    return result


def _disconnect(network: nn.Module, name: str, index: Tensor) -> None:
    """Zero the weights of one layer that read these positions of its input."""
    (axis,) = channels_of(network, name, "in").axes
    weight = network.get_submodule(name).weight
    width = weight.shape[axis.axis]
    block = len(weight) // axis.blocks
    for position in index.tolist():
        if axis.blocks == 1:
            weight.select(axis.axis, position).zero_()
        else:
            first = position // width * block
            weight[first : first + block, position % width] = 0


class _Selecting:
    """Normalises some channels with the pruned layer, and leaves zeros in place of the others."""

    def __init__(self, pruned: nn.Module, stay: Tensor, width: int) -> None:
        self.pruned, self.stay, self.width = pruned, stay, width
        # Among others' layer norms, these have the channels second.
        kind, order = type(pruned).__name__.lower(), getattr(pruned, "data_format", "")
        second = "2d" in kind or order == "channels_first"
        self.last = isinstance(pruned, nn.LayerNorm) and not second

    def __call__(self, x: Tensor) -> Tensor:
        axis = -1 if self.last and x.shape[-1] == self.width else 1
        some = self.pruned(x.index_select(axis, self.stay))
        return torch.zeros_like(x).index_copy(axis, self.stay, some)
