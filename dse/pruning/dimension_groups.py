"""Propose channel groups from the factors of a network's axes: heads, widths, any dimension.

Each factor that no operator ties to the network's input, its pixels or fixed places is a group: all
positions along which its factor lies go together.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from math import gcd

from torch import nn
from torch.nn.modules.conv import _ConvNd

from dse.errors import PruningError
from dse.pruning.channel_group import ChannelGroup, Dimension, Member, is_axis, owner_of
from dse.pruning.counting_attributes import counting_attributes
from dse.pruning.dimension_flow import Flow
from dse.pruning.factors import (
    Factor,
    UnfollowedError,
    addends_of,
    factors_of,
    leaves,
    occurrences,
    reason_of,
)
from dse.pruning.layout import Channels, channels_of

Layout = Callable[[str, Dimension], Channels]

Stretches = list[tuple[int, int]]
"""Pairs of the start of a factor's channels along an axis, and the span of each channel."""


def dimension_groups(
    network: nn.Module,
    flow: Flow,
    *,
    accepted: Collection[Factor] = (),
    left_out: Collection[Factor] = (),
    uncounted: Collection[Factor] = (),
) -> list[tuple[Factor, ChannelGroup]]:
    """Build one group for each factor that can be removed.

    Where several factors lie along one axis, as heads and their width, the slowest is taken.

    Args:
        network: The network that was followed.
        flow: The factors of its axes.
        accepted: Factors whose groups have been tried, and can be removed.
        left_out: Factors whose groups have been tried, and can't.
        uncounted: Factors that no number of a module counts, but for those of PyTorch's layers.
    """
    separate = _separate(flow)
    few = {leaf for leaf in separate if leaf.size <= 2}  # noqa: PLR2004  # one alone isn't predicted
    chosen = _chosen(flow, accepted, {*left_out, *few})
    members = _members(network, flow, chosen, uncounted)
    rank = {name: place for place, name in enumerate(flow.order)}
    last = len(rank)
    found = []
    for leaf in chosen:
        own = members.get(leaf, [])
        producing = [each for each in own if _produces(network, each)]
        if not producing or not any(each.reads for each in own):
            continue
        blocks, own = _gathered(own, leaf.size)
        producing = [each for each in own if _produces(network, each)]
        layers = [each for each in producing if not is_axis(each)]
        owners = {owner_of(network, each.module): None for each in layers or producing}
        head = min(owners, key=lambda name: rank.get(name, last))
        own.sort(key=lambda each: _place(network, each, producing, rank))
        fewest = 2 if leaf in separate else 1
        group = ChannelGroup(head, blocks * leaf.size, blocks, tuple(own), fewest)
        found.append((leaf, group))
    found.sort(key=lambda pair: (rank.get(pair[1].name, last), pair[1].members[0].start))
    names = _uniquely_named([group for _, group in found])
    return [(leaf, group) for (leaf, _), group in zip(found, names, strict=True)]


def _place(
    network: nn.Module, member: Member, producing: Collection[Member], rank: Mapping[str, int]
) -> tuple[bool, int]:
    """Sort producers first, then by execution."""
    return member not in producing, rank.get(owner_of(network, member.module), len(rank))


def _gathered(members: list[Member], size: int) -> tuple[int, list[Member]]:
    """Number channels through all blocks, if each member has one stretch per block.

    Grouped convolutions divide their channels into blocks, of which each must keep equally many,
    but not the same ones.

    Returns:
        The number of blocks, and the members with one stretch for all blocks.
    """
    stretches: dict[tuple[str, Dimension], list[Member]] = defaultdict(list)
    for member in members:
        stretches[member.module, member.dimension].append(member)
    turns = [
        each.span if counts_channels(each) else len(own)
        for own in stretches.values()
        for each in own
    ]
    blocks = gcd(*turns)
    for own in stretches.values():
        for turn, each in enumerate(own):
            first = own[turn - turn % blocks]
            if not counts_channels(each) and (
                each.span != first.span
                or each.start != first.start + turn % blocks * size * each.span
            ):
                return 1, members
    gathered = []
    for own in stretches.values():
        if counts_channels(own[0]):
            gathered += [replace(each, span=each.span // blocks) for each in own]
        else:
            gathered += own[::blocks]
    return blocks, gathered


def counts_channels(member: Member) -> bool:
    """Whether a member is an attribute that counts positions."""
    return isinstance(member.dimension, str) and member.dimension not in ("out", "in", "both")


def _uniquely_named(groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
    """Number the groups that one layer heads: ``conv``, ``conv#2`` and so on."""
    seen: dict[str, int] = {}
    named = []
    for group in groups:
        seen[group.name] = number = seen.get(group.name, 0) + 1
        named.append(group if number == 1 else replace(group, name=f"{group.name}#{number}"))
    return named


def whole_reasons(network: nn.Module, flow: Flow) -> dict[str, str]:
    """Give the reason for each convolution and linear layer all of whose outputs stay whole."""
    reasons = {}
    for name, module in network.named_modules():
        if isinstance(module, (_ConvNd, nn.Linear)) and f"{name}.weight" in flow.parameters:
            axis = 1 if isinstance(module, _ConvNd) and module.transposed else 0
            if reason := reason_of(flow.parameters[f"{name}.weight"][axis]):
                reasons[name] = reason
    return reasons


def _chosen(
    flow: Flow, accepted: Collection[Factor], left_out: Collection[Factor]
) -> dict[Factor, None]:
    """Choose the factors to remove: at most one of those that are multiplied along any axis."""
    axes = [axis for own in flow.parameters.values() for axis in own]
    chosen: dict[Factor, None] = dict.fromkeys(accepted)
    refused = set(left_out)
    for axis in sorted(axes, key=lambda each: -len(factors_of(each))):
        _choose(axis, chosen, refused)
    return chosen


def _separate(flow: Flow) -> set[Factor]:
    """Return the factors that become axes of their own, such as heads, from a part of an axis.

    Only axes that weights produce are considered: where a linear layer reads flattened feature
    maps, their channels are a part of the axis that it reads, too.
    """
    reading = _reading(flow)
    parts = {
        part.resolved()
        for name, axes in flow.parameters.items()
        if len(axes) > 1
        for axis in axes
        for addend in addends_of(axis)
        if addend.kind == "product"
        for part in factors_of(addend)
        if (name, part.resolved()) not in reading
    }
    own = {axis.resolved() for scope in flow.scopes.values() for axis in scope.values()}
    return parts & own


def _reading(flow: Flow) -> set[tuple[str, Factor]]:
    """Return pairs of the names of parameters and the factors that they add up."""
    return {(name, leaf) for name, factor in flow.reads for leaf in leaves(factor)}


def _choose(axis: Factor, chosen: dict[Factor, None], refused: set[Factor]) -> None:
    here = axis.resolved()
    if here.kind == "leaf":
        if here.whole is None and here.size > 1 and here not in refused:
            chosen.setdefault(here)
        return
    if here.kind == "sum":
        for part in here.parts:
            _choose(part, chosen, refused)
        return
    # Another axis may already have decided between these factors.
    parts = [part for part in here.parts if _free(part, refused)]
    taken = next((part for part in parts if any(leaf in chosen for leaf in leaves(part))), None)
    taken = taken or next(iter(parts), None)
    for part in parts:
        if part is not taken:
            for leaf in leaves(part):
                refused.add(leaf)
                chosen.pop(leaf, None)
    if taken is not None:
        _choose(taken, chosen, refused)


def _free(factor: Factor, refused: Collection[Factor]) -> bool:
    return any(
        leaf.whole is None and leaf.size > 1 and leaf not in refused for leaf in leaves(factor)
    )


def _members(
    network: nn.Module, flow: Flow, chosen: Collection[Factor], uncounted: Collection[Factor]
) -> dict[Factor, list[Member]]:
    """List the places of each chosen factor in layers, bare parameters and attributes.

    An axis of a layer's tensor is a channel dimension of the layer where its layout says so.
    """
    layout = cache(partial(channels_of, network))
    reading = _reading(flow)
    members: dict[Factor, dict[Member, None]] = defaultdict(dict)
    for name, axes in flow.parameters.items():
        owner, _, tensor = name.rpartition(".")
        multiplies = _multiplies(network, owner)
        for axis, factor in enumerate(axes):
            dimension = None if multiplies else _dimension(layout, owner, tensor, axis)
            channels = None if dimension is None else layout(owner, dimension)
            for leaf, places in _places(factor, chosen).items():
                if dimension is None or channels is None:
                    reads = (name, leaf) in reading
                    own = [Member(name, axis, *place, summed=reads) for place in places]
                else:
                    stretches = _in_blocks(channels, tensor, axis, places)
                    own = [Member(owner, dimension, *stretch) for stretch in stretches]
                members[leaf].update(dict.fromkeys(own))
    for name in flow.order:
        if _described(layout, name) and not _multiplies(network, name):
            continue
        for attribute, factor, known in counting_attributes(network, name, flow):
            for leaf, span in _counted(factor, chosen):
                if known or leaf not in uncounted:
                    members[leaf].setdefault(Member(name, attribute, 0, span))
    return {leaf: list(found) for leaf, found in members.items()}


def _places(factor: Factor, chosen: Collection[Factor]) -> dict[Factor, Stretches]:
    try:
        found = occurrences(factor)
    except UnfollowedError:
        return {}
    places: dict[Factor, Stretches] = defaultdict(list)
    for each in found:
        if each.leaf in chosen:
            places[each.leaf].extend((start, each.span) for start in each.starts)
    return places


def _in_blocks(channels: Channels, tensor: str, axis: int, places: Stretches) -> Stretches:
    """Repeat places for each block of a grouped convolution, whose weight shows one block's."""
    (blocks,) = [
        each.blocks for each in channels.axes if each.tensor == tensor and each.axis == axis
    ]
    width = channels.width // blocks
    return [(block * width + start, span) for block in range(blocks) for start, span in places]


def _multiplies(network: nn.Module, name: str) -> bool:
    """Whether a convolution has several filters for each channel, which go with the channel."""
    module = network.get_submodule(name)
    return (
        isinstance(module, _ConvNd)
        and 1 < module.groups == module.in_channels < module.out_channels
    )


def _dimension(layout: Layout, owner: str, tensor: str, axis: int) -> Dimension | None:
    """Return the dimension of a standard layer that a tensor's axis belongs to, if it is one."""
    for dimension in ("out", "in", "both"):
        try:
            channels = layout(owner, dimension)
        except PruningError:
            continue
        if any(each.tensor == tensor and each.axis == axis for each in channels.axes):
            return dimension
    return None


def _counted(factor: Factor, chosen: Collection[Factor]) -> list[tuple[Factor, int]]:
    """Return how many positions of an axis go with each position of each chosen factor."""
    found = _places(factor, chosen)
    return [(leaf, sum(span for _, span in places)) for leaf, places in found.items()]


def _described(layout: Layout, name: str) -> bool:
    """Whether the layout has the attributes of a layer."""
    for dimension in ("out", "both"):
        with suppress(PruningError):
            layout(name, dimension)
            return True
    return False


def _produces(network: nn.Module, member: Member) -> bool:
    """Whether a member's positions are outputs of a convolution, linear layer or own weight."""
    if member.reads:
        return False
    if is_axis(member):
        try:
            return network.get_parameter(member.module).dim() > 1
        except AttributeError:
            return False
    if member.dimension not in ("out", "both"):
        return False
    return isinstance(network.get_submodule(member.module), (_ConvNd, nn.Linear))
