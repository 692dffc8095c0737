"""Turn the places that channels reach into channel groups, or explain why that is impossible."""

from collections.abc import Callable, Mapping, Sequence
from math import lcm

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.conv import _ConvNd

from dse.errors import PruningError
from dse.pruning.channel_group import ChannelGroup, Dimension, Member
from dse.pruning.layout import Channels

Ints = NDArray[np.int64]

Places = Mapping[tuple[str, Dimension], tuple[Ints, Ints]]
"""For each dimension of each module: positions (n,) and the root's channel at each of them (n,)."""


def uniform_blocks(places: Places) -> list[Ints]:
    """Split channels into blocks that occur in the same places.

    For example, if a layer's output is added to a concatenation of two layers, some of its channels
    are tied to one of these layers and the rest to the other. They become separate groups.

    Returns:
        For each block, the root's channels that occur equally often in every dimension, ascending.
    """
    most = 1 + max(int(channels.max()) for _, channels in places.values())
    counts = np.stack(
        [np.bincount(channels, minlength=most) for _, channels in places.values()], axis=1
    )
    blocks: dict[bytes, list[int]] = {}
    for channel, count in enumerate(counts):
        if count.any():
            blocks.setdefault(count.tobytes(), []).append(channel)
    return [np.array(block, dtype=np.int64) for block in blocks.values()]


def producers(
    network: nn.Module, places: Places, block: Ints, rank: Mapping[str, int]
) -> list[str]:
    """Return the convolutions and linear layers that produce a block, in execution order."""
    names = {
        name
        for (name, dimension), (_, channels) in places.items()
        if dimension in ("out", "both")
        and isinstance(network.get_submodule(name), (_ConvNd, nn.Linear))
        and bool((channels == block[0]).any())  # all channels of a block occur in the same places
    }
    return sorted(names, key=lambda name: (rank.get(name, len(rank)), name))


def block_group(
    layout: Callable[[str, Dimension], Channels],
    places: Places,
    block: Ints,
    heads: Sequence[str],
    rank: Mapping[str, int],
) -> ChannelGroup:
    """Build one group, whose channels are numbered from 0 in the root's order.

    Args:
        layout: Describes the channels of a dimension of a module.
        places: Places of all channels of the root.
        block: Channels that form the group, shape (n,), ascending.
        heads: Layers that produce these channels.
        rank: Position of each layer in execution order.

    Raises:
        PruningError: If these channels can't be removed one by one.
    """
    members: list[Member] = []
    multiples: dict[str, int] = {heads[0]: 1}
    chosen = np.zeros(1 + max(int(channels.max()) for _, channels in places.values()), np.bool_)
    chosen[block] = True
    for (name, dimension), (positions, channels) in places.items():
        inside = chosen[channels]
        if not inside.any():
            continue
        # Sort by channel, then by position: one row of positions per channel.
        order = np.lexsort((positions[inside], channels[inside]))
        own = positions[inside][order].reshape(len(block), -1)
        found = layout(name, dimension)
        parts = _affine(name, dimension, own)
        if found.multiple > 1 and (found.width != len(block) or parts[0].start):
            raise PruningError(
                f"{name}: its {found.multiple} blocks hold channels of several layers, "
                "which can't shrink evenly"
            )
        multiples[name] = lcm(multiples.get(name, 1), found.multiple)
        members.extend(parts)
    multiple = lcm(*multiples.values())
    if multiple >= len(block):
        divides = max(multiples, key=lambda name: multiples[name])
        why = f", because {divides} divides them into {multiple} groups" if multiple > 1 else ""
        raise PruningError(f"none of these {len(block)} channels can be removed{why}")
    members.sort(key=lambda member: _member_key(member, heads, rank))
    return ChannelGroup(heads[0], len(block), multiple, tuple(members))


def uniquely_named(groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
    """Number the groups that one layer heads: ``conv``, ``conv#2`` and so on."""
    seen: dict[str, int] = {}
    named = []
    for group in groups:
        seen[group.name] = number = seen.get(group.name, 0) + 1
        name = group.name if number == 1 else f"{group.name}#{number}"
        named.append(ChannelGroup(name, group.channels, group.multiple, group.members))
    return named


def _affine(name: str, dimension: Dimension, own: Ints) -> list[Member]:
    """Express each channel's positions, shape (channels, positions), as starts and a span."""
    channels, count = own.shape
    first = int(own[0, 0])
    if (own.ravel() == first + np.arange(own.size)).all():
        return [Member(name, dimension, first, count)]
    offsets = own - np.arange(channels)[:, None]
    if (offsets == own[0]).all() and len(np.unique(own)) == own.size:
        return [Member(name, dimension, int(start), 1) for start in own[0]]
    raise PruningError(f"{name}: its channels are rearranged before they reach the next layer")


def _member_key(
    member: Member, heads: Sequence[str], rank: Mapping[str, int]
) -> tuple[bool, int, str, str, int]:
    """Sort producers first, then by execution. Bare parameters do not execute and come last."""
    produces = member.module in heads and member.dimension != "in"
    place = rank.get(member.module, len(rank))
    return (not produces, place, member.module, str(member.dimension), member.start)
