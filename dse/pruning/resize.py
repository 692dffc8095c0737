"""Shapes of a network as functions of its channel counts, and networks that have them.

No tracing happens here, and no memory is used beyond the module objects: the resized network lives
on the meta device, so that marker widths of a million channels cost nothing.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from math import lcm

import torch
from torch import Tensor, nn

from dse.errors import PruningError
from dse.pruning.channel_group import ChannelGroup, Dimension, Member
from dse.pruning.layout import Channels, channels_of


@dataclass(frozen=True)
class Form:
    """A size that is linear in the kept channel counts.

    Attributes:
        constant: Entries that belong to no group.
        terms: (index of the group, entries per channel); a grouped convolution's weight has a
            fraction of an entry per channel.
    """

    constant: int
    terms: tuple[tuple[int, Fraction], ...]

    def size(self, channels: Sequence[int]) -> int:
        """The size for one channel count per group.

        Raises:
            PruningError: If it isn't a whole number above zero.
        """
        common = lcm(*(entries.denominator for _, entries in self.terms))
        total = self.constant * common
        for group, entries in self.terms:
            total += entries.numerator * (common // entries.denominator) * channels[group]
        if total % common or total < common:
            counts = ", ".join(str(channels[group]) for group, _ in self.terms)
            raise PruningError(
                f"channel counts {counts}: they make a dimension of {Fraction(total, common)}; "
                "keep at least one channel and a multiple of the group's own"
            )
        return total // common


def parameter_forms(
    network: nn.Module, groups: Sequence[ChannelGroup]
) -> dict[str, tuple[Form | int, ...]]:
    """Describe the shape of every parameter and buffer as a function of channel counts.

    Args:
        network: The unpruned network that the groups were found in.
        groups: In the order in which channel counts will be given.

    Returns:
        For each name, tied ones included, one entry per dimension: a plain int where no group
        reaches.

    Raises:
        PruningError: If a group doesn't fit the network.
    """
    return _forms(network, _stretches(network, groups))


def resized(
    network: nn.Module, groups: Sequence[ChannelGroup], channels: Sequence[int]
) -> nn.Module:
    """Copy a network onto the meta device with other channel counts.

    Args:
        network: The unpruned network that the groups were found in; it isn't changed.
        groups: All groups whose counts may differ from the network's own.
        channels: One count per group, smaller or larger than the full one.

    Returns:
        A network with the same modules, train/eval flags and ``requires_grad``, whose parameters
        and buffers have the shapes of the resized network and no contents.

    Raises:
        PruningError: If a group doesn't fit the network, or a count isn't a positive multiple of
            its group's own.
    """
    return resized_with(
        network,
        groups,
        channels,
        lambda _, tensor, shape: torch.empty(shape, dtype=tensor.dtype, device="meta"),
    )


def resized_with(
    network: nn.Module,
    groups: Sequence[ChannelGroup],
    channels: Sequence[int],
    make: Callable[[str, Tensor, tuple[int, ...]], Tensor],
) -> nn.Module:
    """Copy a network with other channel counts and contents of the caller's choice.

    Args:
        network: As for :func:`resized`.
        groups: As for :func:`resized`.
        channels: As for :func:`resized`.
        make: Is given each parameter's and buffer's name, the tensor that it had and the shape that
            it shall have, and returns the new one.

    Raises:
        PruningError: As for :func:`resized`.
    """
    check_counts(groups, channels)
    stretches = _stretches(network, groups)
    shapes = {
        name: tuple(form if isinstance(form, int) else form.size(channels) for form in dimensions)
        for name, dimensions in _forms(network, stretches).items()
    }
    copied = copy_with_tensors(network, lambda name, tensor: make(name, tensor, shapes[name]))
    _write_widths(copied, stretches, channels)
    return copied


def resized_groups(
    groups: Sequence[ChannelGroup], channels: Sequence[int]
) -> tuple[ChannelGroup, ...]:
    """Describe groups as they lie in the resized network: what comes after others moves up."""
    lying: dict[tuple[str, Dimension], list[tuple[int, int]]] = {}  # starts, and what goes there
    for group, count in zip(groups, channels, strict=True):
        for member in group.members:
            key, gone = (member.module, member.dimension), group.channels - count
            lying.setdefault(key, []).append((member.start, gone * member.span))

    def moved(member: Member) -> Member:
        before = lying[member.module, member.dimension]
        start = member.start - sum(gone for start, gone in before if start < member.start)
        return Member(member.module, member.dimension, start, member.span)

    return tuple(
        ChannelGroup(group.name, count, group.multiple, tuple(map(moved, group.members)))
        for group, count in zip(groups, channels, strict=True)
    )


def check_counts(groups: Sequence[ChannelGroup], channels: Sequence[int]) -> None:
    """Refuse channel counts that no network could have.

    Raises:
        PruningError: If their number isn't the groups', or one isn't a positive multiple of what
            its group demands.
    """
    if len(channels) != len(groups):
        raise PruningError(
            f"{len(channels)} channel counts for {len(groups)} groups: give one each"
        )
    for group, count in zip(groups, channels, strict=True):
        if count < 1 or count % group.multiple:
            raise PruningError(
                f"{group.name}: {count} channels can't be kept; "
                f"give a positive multiple of {group.multiple}"
            )


def copy_with_tensors(network: nn.Module, replace: Callable[[str, Tensor], Tensor]) -> nn.Module:
    """Copy a network, putting other tensors in the place of its parameters and buffers.

    Tied tensors stay tied, ``requires_grad`` and train/eval flags are kept, gradients are dropped.

    Args:
        network: Is left as it was.
        replace: Is given the name and the tensor, and returns the new one.
    """
    memo: dict[int, Tensor] = {}
    for name, parameter in network.named_parameters():
        value = replace(name, parameter)
        memo[id(parameter)] = nn.Parameter(value, requires_grad=parameter.requires_grad)
    for name, buffer in network.named_buffers():
        memo[id(buffer)] = replace(name, buffer)
    return copy.deepcopy(network, memo)


def set_attributes(
    copied: nn.Module,
    network: nn.Module,
    groups: Sequence[ChannelGroup],
    channels: Sequence[int],
) -> None:
    """Write the resized widths into ``in_channels``, ``num_features`` and their like.

    Args:
        copied: The network whose modules are written to.
        network: The unpruned network that it was copied from.
        groups: The channel groups.
        channels: One count per group.
    """
    _write_widths(copied, _stretches(network, groups), channels)


@dataclass(frozen=True)
class _Stretch:
    """A channel dimension of a module, or of a bare parameter, that groups reach."""

    module: str
    dimension: Dimension
    channels: Channels
    width: Form


def _write_widths(
    copied: nn.Module, stretches: Sequence[_Stretch], channels: Sequence[int]
) -> None:
    for stretch in stretches:
        for attribute in stretch.channels.attributes:
            size = stretch.width.size(channels)
            # LayerNorm states its width as a tuple, everything else as a number.
            value = (size,) if attribute == "normalized_shape" else size
            setattr(copied.get_submodule(stretch.module), attribute, value)


def _forms(network: nn.Module, stretches: Sequence[_Stretch]) -> dict[str, tuple[Form | int, ...]]:
    """The shape of every parameter and buffer, given the width of every channel dimension."""
    shapes: dict[int, list[Form | int]] = {}  # by tensor identity, so that tied names share one
    forms = {
        name: shapes.setdefault(id(tensor), list(tensor.shape))
        for name, tensor in _named_tensors(network)
    }
    for stretch in stretches:
        for axis in stretch.channels.axes:
            full_name = f"{stretch.module}.{axis.tensor}".strip(".")
            forms[full_name][axis.axis] = _divided(stretch.width, axis.blocks)
    return {name: tuple(dimensions) for name, dimensions in forms.items()}


def _stretches(network: nn.Module, groups: Sequence[ChannelGroup]) -> list[_Stretch]:
    """Every channel dimension that a group reaches."""
    terms: dict[tuple[str, Dimension], dict[int, int]] = {}
    covered: dict[tuple[str, Dimension], int] = {}
    for index, group in enumerate(groups):
        for member in group.members:
            key = (member.module, member.dimension)
            spans = terms.setdefault(key, {})
            spans[index] = spans.get(index, 0) + member.span
            covered[key] = covered.get(key, 0) + member.span * group.channels
    stretches = []
    for key, spans in terms.items():
        found = channels_of(network, *key)
        constant = found.width - covered[key]
        if constant < 0:
            raise PruningError(
                f"{key[0]}: the channel groups hold {-constant} channels more than it has; "
                "find the groups of this very network"
            )
        width = Form(constant, tuple((g, Fraction(n)) for g, n in sorted(spans.items())))
        stretches.append(_Stretch(*key, found, width))
    return stretches


def _divided(width: Form, blocks: int) -> Form:
    if width.constant % blocks:
        raise PruningError(f"{width.constant} fixed channels can't be shared by {blocks} blocks")
    if blocks == 1:
        return width
    terms = tuple((group, entries / blocks) for group, entries in width.terms)
    return Form(width.constant // blocks, terms)


def _named_tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    return list(
        chain(
            network.named_parameters(remove_duplicate=False),
            network.named_buffers(remove_duplicate=False),
        )
    )
