"""The adapter around Torch-Pruning: which channels of a network hang together.

Torch-Pruning walks the autograd graph and guesses how channels pass through each operation. What
comes out here are proposals; :mod:`dse.pruning.consistency` finds out which of them hold.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import lcm
from typing import Any

import torch_pruning as tp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from dse.errors import PruningError
from dse.pruning.channel_group import ChannelGroup, Dimension, Member
from dse.pruning.layout import channels_of, is_depthwise

_STANDARD = (_ConvNd, nn.Linear, _NormBase, nn.GroupNorm, nn.LayerNorm, nn.PReLU)

# Index entries that Torch-Pruning may produce for one network. densenet201, the greediest network
# tried, needs 2.7 million; attention over shifted windows makes them grow without end.
_MAX_INDEX_ENTRIES = 10_000_000

# For each dimension of each module: (position, channel of the group's root) pairs.
_Pairs = dict[tuple[str, Dimension], list[tuple[int, int]]]


def proposed_groups(
    network: nn.Module, sample: Tensor, *, order: Sequence[str], outputs: Sequence[str]
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Ask Torch-Pruning for the channel groups of a network.

    Args:
        network: A scratch copy whose parameters all require gradients; it is left in eval mode.
        sample: One input.
        order: Leaf modules in execution order.
        outputs: Layers whose outputs are the network's own and stay whole.

    Returns:
        The groups whose members can be resized, in execution order (whether removing their channels
        leaves a working network is yet to be seen), and for each layer that heads another one the
        reason why that can't be.

    Raises:
        PruningError: If Torch-Pruning can't follow the network.
    """
    rank = {name: index for index, name in enumerate(order)}
    names: dict[int, str] = {id(module): name for name, module in network.named_modules()}
    names |= {id(parameter): name for name, parameter in network.named_parameters()}
    groups: list[ChannelGroup] = []
    refused: dict[str, str] = {}
    for raw in _torch_pruning_groups(network, sample, outputs):
        pairs = _position_pairs(raw, names)
        for channels in _uniform_blocks(pairs):
            heads = _producers(network, pairs, channels, rank)
            try:
                groups.append(_group(network, pairs, channels, heads, rank))
            except PruningError as error:
                refused[heads[0]] = str(error)
    groups.sort(key=lambda group: (rank.get(group.name, len(rank)), group.members[0].start))
    return _uniquely_named(groups), refused


def _torch_pruning_groups(
    network: nn.Module, sample: Tensor, outputs: Sequence[str]
) -> Iterator[Any]:
    """Yield Torch-Pruning's own group objects, its every failure turned into one line."""
    # Torch-Pruning sees the network's input only if a layer made it: without one it takes
    # concatenations with the input for shorter than they are.
    stem = _identity_sized_layer(sample)
    try:
        graph = tp.DependencyGraph().build_dependency(
            nn.Sequential(stem, network),
            example_inputs=sample,
            forward_fn=lambda module, x: module(x),
            unwrapped_parameters=_bare_parameters(network),
            verbose=False,  # what it would warn of is checked afterwards
        )
        spend = _Budget(network).spend
        for node in graph.module2node.values():
            for dependency in node.dependencies:
                dependency.index_mapping = _GuardedMappings(dependency.index_mapping, spend)
        yield from graph.get_all_groups(
            ignored_layers=[stem, *(network.get_submodule(name) for name in outputs)],
            root_module_types=[_ConvNd, nn.Linear],
        )
    except PruningError:
        raise
    except Exception as error:
        told = " ".join(str(error).split())  # errors are one line
        raise PruningError(
            f"{type(network).__name__}: Torch-Pruning can't follow how its channels pass from "
            f"layer to layer ({type(error).__name__}: {told}); use another network"
        ) from error


def _identity_sized_layer(sample: Tensor) -> nn.Module:
    """A layer with as many output as input channels, for one input's number of dimensions."""
    features = sample.shape[1]
    convolutions = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
    if sample.dim() in convolutions:
        return convolutions[sample.dim()](features, features, kernel_size=1, dtype=sample.dtype)
    return nn.Linear(sample.shape[-1], sample.shape[-1], dtype=sample.dtype)


class _Budget:
    """Counts index entries, and ends an analysis that would never end by itself."""

    def __init__(self, network: nn.Module) -> None:
        self._name = type(network).__name__
        self._left = _MAX_INDEX_ENTRIES

    def spend(self, entries: int) -> None:
        self._left -= entries
        if self._left < 0:
            raise PruningError(
                f"{self._name}: its channels are rearranged in ways that Torch-Pruning can't "
                "follow; use a convolutional network without attention windows"
            )


class _GuardedMappings(list[Any]):
    """The index mappings of one dependency; each use is paid for."""

    def __init__(self, mappings: Sequence[Any], spend: Callable[[int], None]) -> None:
        super().__init__(mappings)
        self._spend = spend

    def __iter__(self) -> Iterator[Any]:
        self._spend(1)
        for mapping in super().__iter__():
            yield None if mapping is None else self._paid(mapping)

    def _paid(self, mapping: Any) -> Callable[[Any], Any]:
        def apply(indices: Any) -> Any:
            # Flattening multiplies indices, up to a single call that never returns: pay beforehand.
            grows = not mapping.reverse
            self._spend(len(indices) * (getattr(mapping, "_stride", 1) if grows else 1))
            return mapping(indices)

        return apply


def _bare_parameters(network: nn.Module) -> list[tuple[nn.Parameter, int]]:
    """Parameters outside the standard layers, each with the axis that its channels lie along."""
    return [
        (parameter, _channel_axis(parameter))
        for module in network.modules()
        if not isinstance(module, _STANDARD)
        for parameter in module.parameters(recurse=False)
        if parameter.numel() > 1
    ]


def _channel_axis(parameter: nn.Parameter) -> int:
    """Of a (..., channels, height, width) tensor the third from last, otherwise the last."""
    spatial = 2
    if parameter.dim() > spatial and parameter.shape[-3] > 1:
        return parameter.dim() - 3
    return max(axis for axis, size in enumerate(parameter.shape) if size > 1)


def _position_pairs(raw: Any, names: Mapping[int, str]) -> _Pairs:
    """Translate a Torch-Pruning group, leaving out its pseudo-operations, which have no tensors."""
    pairs: _Pairs = defaultdict(list)
    for item in raw:
        target = item.dep.target.module
        name = names.get(id(target))
        if name is None or (isinstance(target, nn.PReLU) and target.num_parameters == 1):
            continue
        dimension = _dimension(target, item.dep)
        pairs[name, dimension].extend(zip(item.idxs, item.root_idxs, strict=True))
    return pairs


def _dimension(target: nn.Module | nn.Parameter, dependency: Any) -> Dimension:
    if isinstance(target, nn.Parameter):
        return int(dependency.target.pruning_dim)
    if is_depthwise(target) or not isinstance(target, (_ConvNd, nn.Linear)):
        return "both"
    return "out" if dependency.handler.__name__ == "prune_out_channels" else "in"


def _uniform_blocks(pairs: _Pairs) -> list[list[int]]:
    """Split a group's channels by where they occur.

    A sum with a concatenation, for instance, ties some channels of a layer to one of the
    concatenated layers and the rest to the other: these are groups of their own.

    Returns:
        For each block the root's channels that occur equally often in each dimension.
    """
    occurrences: dict[int, dict[tuple[str, Dimension], int]] = defaultdict(dict)
    for key, positions in pairs.items():
        for _, channel in positions:
            counts = occurrences[channel]
            counts[key] = counts.get(key, 0) + 1
    blocks: dict[frozenset[tuple[tuple[str, Dimension], int]], list[int]] = {}
    for channel in sorted(occurrences):
        blocks.setdefault(frozenset(occurrences[channel].items()), []).append(channel)
    return list(blocks.values())


def _producers(
    network: nn.Module, pairs: _Pairs, channels: Sequence[int], rank: Mapping[str, int]
) -> list[str]:
    """Convolutions and linear layers that make some of these channels, in execution order."""
    wanted = set(channels)
    names = {
        name
        for (name, dimension), positions in pairs.items()
        if dimension in ("out", "both")
        and isinstance(network.get_submodule(name), (_ConvNd, nn.Linear))
        and any(channel in wanted for _, channel in positions)
    }
    return sorted(names, key=lambda name: (rank.get(name, len(rank)), name))


def _group(
    network: nn.Module,
    pairs: _Pairs,
    channels: Sequence[int],
    heads: Sequence[str],
    rank: Mapping[str, int],
) -> ChannelGroup:
    """Build one group, its channels numbered from 0 in the root's order."""
    renumbered = {channel: index for index, channel in enumerate(channels)}
    members: list[Member] = []
    multiples = [1]
    for (name, dimension), positions in pairs.items():
        own: list[list[int]] = [[] for _ in channels]
        for position, channel in positions:
            if channel in renumbered:
                own[renumbered[channel]].append(position)
        if not own[0]:
            continue
        found = channels_of(network, name, dimension)
        parts = _affine(name, dimension, [sorted(each) for each in own])
        if found.multiple > 1 and (found.width != len(channels) or parts[0].start):
            raise PruningError(
                f"{name}: its {found.multiple} blocks hold channels of several layers, "
                "which can't shrink evenly"
            )
        multiples.append(found.multiple)
        members.extend(parts)
    multiple = lcm(*multiples)
    if multiple >= len(channels):
        raise PruningError(f"{heads[0]}: it has {len(channels)} channels, none of which can go")
    members.sort(key=lambda member: _member_key(member, heads, rank))
    return ChannelGroup(heads[0], len(channels), multiple, tuple(members))


def _affine(name: str, dimension: Dimension, own: Sequence[Sequence[int]]) -> list[Member]:
    """Express each channel's positions as a start and a span."""
    seen = {position for positions in own for position in positions}
    count, channels = len(own[0]), len(own)
    if len(seen) == count * channels:
        first = own[0][0]
        if [*range(first, first + count * channels)] == [p for each in own for p in each]:
            return [Member(name, dimension, first, count)]
        starts = own[0]
        if all(
            positions == [start + channel for start in starts]
            for channel, positions in enumerate(own)
        ):
            return [Member(name, dimension, start, 1) for start in starts]
    raise PruningError(f"{name}: its channels are rearranged before they reach the next layer")


def _member_key(
    member: Member, heads: Sequence[str], rank: Mapping[str, int]
) -> tuple[bool, int, str, str, int]:
    """Producers first, then by execution; bare parameters, which don't execute, last."""
    produces = member.module in heads and member.dimension != "in"
    place = rank.get(member.module, len(rank))
    return (not produces, place, member.module, str(member.dimension), member.start)


def _uniquely_named(groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
    """Number the blocks that one layer heads: ``conv``, ``conv#2`` and so on."""
    seen: dict[str, int] = {}
    named = []
    for group in groups:
        seen[group.name] = number = seen.get(group.name, 0) + 1
        name = group.name if number == 1 else f"{group.name}#{number}"
        named.append(ChannelGroup(name, group.channels, group.multiple, group.members))
    return named
