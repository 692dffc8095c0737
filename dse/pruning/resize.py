"""Shapes of a network as functions of its channel counts, and networks of these shapes.

Nothing is traced, and resized networks live on the meta device, so even marker widths of a million
channels cost no memory beyond the module objects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from math import lcm

import torch
from torch import Tensor, nn

from dse.errors import PruningError
from dse.networks.copies import copied
from dse.pruning.channel_group import ChannelGroup, Dimension, Member
from dse.pruning.layout import Channels, channels_of, write_attribute


@dataclass(frozen=True)
class Form:
    """A size that is linear in the kept channel counts.

    Attributes:
        constant: Entries that belong to no group.
        terms: Pairs of group index and entries per channel. The entries are a fraction for a
            grouped convolution's weight.
    """

    constant: int
    terms: tuple[tuple[int, Fraction], ...]

    def size(self, channels: Sequence[int]) -> int:
        """Return the size for one channel count per group.

        Raises:
            PruningError: If the size is not a positive whole number.
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
        groups: Channel groups, in the order in which channel counts will be given.

    Returns:
        For each name, including those of tied tensors, one entry per dimension. An entry is an int
        if no group affects the dimension.

    Raises:
        PruningError: If a group does not match the network.
    """
    return _forms(network, _stretches(network, groups))


def resized(
    network: nn.Module, groups: Sequence[ChannelGroup], channels: Sequence[int]
) -> nn.Module:
    """Copy a network onto the meta device with other channel counts.

    Args:
        network: The unpruned network that the groups were found in. It is not changed.
        groups: Groups whose counts may differ from the network's own.
        channels: One count per group, smaller or larger than the full one.

    Returns:
        A network with the same modules, training flags and ``requires_grad``, whose parameters and
        buffers have the new shapes and no values.

    Raises:
        PruningError: If a group does not match the network, or a count is not a positive multiple
            of its group's ``multiple``.
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
    """Copy a network with other channel counts and with tensors that the caller creates.

    Args:
        network: As for :func:`resized`.
        groups: As for :func:`resized`.
        channels: As for :func:`resized`.
        make: Called with the name of each parameter and buffer, its old tensor and its new shape.
            Returns the new tensor.

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
    """Describe groups in the resized network, where later channels of a dimension have moved up."""
    lying: dict[tuple[str, Dimension], list[tuple[int, int]]] = {}  # (start, removed positions)
    for group, count in zip(groups, channels, strict=True):
        for member in group.members:
            key, gone = (member.module, member.dimension), group.channels - count
            lying.setdefault(key, []).append((member.start, gone * member.span))

    def moved(member: Member) -> Member:
        before = lying[member.module, member.dimension]
        start = member.start - sum(gone for start, gone in before if start < member.start)
        return replace(member, start=start)

    return tuple(
        replace(group, channels=count, members=tuple(map(moved, group.members)))
        for group, count in zip(groups, channels, strict=True)
    )


def check_counts(groups: Sequence[ChannelGroup], channels: Sequence[int]) -> None:
    """Check that a network can have these channel counts.

    Raises:
        PruningError: If there is not one count per group, or a count is not a positive multiple of
            its group's ``multiple``.
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
    """Copy a network with other tensors in place of its parameters and buffers.

    Tied tensors stay tied, ``requires_grad`` and training flags are kept, and gradients are
    dropped.

    Args:
        network: The network. It is not changed.
        replace: Called with the name and the tensor. Returns the new tensor.
    """
    # `deepcopy` takes tensors from its memo instead of copying them, so tied ones stay tied.
    memo: dict[int, Tensor] = {}
    for name, parameter in network.named_parameters():
        value = replace(name, parameter)
        memo[id(parameter)] = nn.Parameter(value, requires_grad=parameter.requires_grad)
    for name, buffer in network.named_buffers():
        memo[id(buffer)] = replace(name, buffer)
    result = copied(network, memo)
    for module in result.modules():
        if _stores_tensors(module):
            _forget(module)
    return result


def _stores_tensors(module: nn.Module) -> bool:
    """Whether a module has plain dictionaries of tensors, computed from its parameters."""
    own = {key: value for key, value in vars(module).items() if type(value) is dict}
    return any(
        isinstance(tensor, Tensor)
        for key, value in own.items()
        if key not in ("_parameters", "_buffers")
        for tensor in value.values()
    )


def _forget(module: nn.Module) -> None:
    """Make a module forget what it computed in evaluation, as it does when training begins."""
    training = [(each, each.training) for each in module.modules()]
    module.train()
    for each, value in training:
        each.training = value


def set_attributes(
    copied: nn.Module,
    network: nn.Module,
    groups: Sequence[ChannelGroup],
    channels: Sequence[int],
) -> None:
    """Write the resized widths into attributes such as ``in_channels`` and ``num_features``.

    Args:
        copied: The network whose modules' attributes are set.
        network: The unpruned network that it was copied from.
        groups: Channel groups.
        channels: One count per group.
    """
    _write_widths(copied, _stretches(network, groups), channels)


@dataclass(frozen=True)
class _Stretch:
    """A channel dimension of a module, or of a bare parameter, that belongs to some group."""

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
            write_attribute(copied.get_submodule(stretch.module), attribute, size)


def _forms(network: nn.Module, stretches: Sequence[_Stretch]) -> dict[str, tuple[Form | int, ...]]:
    """Return the shape of every parameter and buffer, given the width of each dimension."""
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
    """Return every channel dimension that belongs to some group."""
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
