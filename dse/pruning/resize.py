"""Shapes of a network as functions of its channel counts, and networks that have them.

No tracing happens here, and no memory is used beyond the module objects: the resized network lives
on the meta device, so that marker widths of a million channels cost nothing.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

import torch
from torch import Tensor, nn

from dse.errors import PruningError
from dse.pruning.channel_group import ChannelGroup, Dimension
from dse.pruning.layout import channels_of


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
        total = sum((entries * channels[group] for group, entries in self.terms), Fraction(0))
        total += self.constant
        if total.denominator != 1 or total < 1:
            counts = ", ".join(str(channels[group]) for group, _ in self.terms)
            raise PruningError(
                f"channel counts {counts}: they make a dimension of {total}; "
                "keep at least one channel and a multiple of the group's own"
            )
        return int(total)


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
    shapes: dict[int, list[Form | int]] = {}  # by tensor identity, so that tied names share one
    forms = {
        name: shapes.setdefault(id(tensor), list(tensor.shape))
        for name, tensor in _named_tensors(network)
    }
    for (name, dimension), width in _widths(network, groups).items():
        for axis in channels_of(network, name, dimension).axes:
            full_name = f"{name}.{axis.tensor}".strip(".")
            forms[full_name][axis.axis] = _divided(width, axis.blocks)
    return {name: tuple(dimensions) for name, dimensions in forms.items()}


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
    check_counts(groups, channels)
    shapes = {
        name: [form if isinstance(form, int) else form.size(channels) for form in dimensions]
        for name, dimensions in parameter_forms(network, groups).items()
    }
    copied = copy_with_tensors(
        network,
        lambda name, tensor: torch.empty(shapes[name], dtype=tensor.dtype, device="meta"),
    )
    set_attributes(copied, network, groups, channels)
    return copied


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
    for (name, dimension), width in _widths(network, groups).items():
        module = copied.get_submodule(name) if not isinstance(dimension, int) else copied
        for attribute in channels_of(network, name, dimension).attributes:
            size = width.size(channels)
            # LayerNorm states its width as a tuple, everything else as a number.
            setattr(module, attribute, (size,) if attribute == "normalized_shape" else size)


def _widths(
    network: nn.Module, groups: Sequence[ChannelGroup]
) -> Mapping[tuple[str, Dimension], Form]:
    """The width of every channel dimension that a group reaches."""
    terms: dict[tuple[str, Dimension], dict[int, int]] = {}
    covered: dict[tuple[str, Dimension], int] = {}
    for index, group in enumerate(groups):
        for member in group.members:
            key = (member.module, member.dimension)
            spans = terms.setdefault(key, {})
            spans[index] = spans.get(index, 0) + member.span
            covered[key] = covered.get(key, 0) + member.span * group.channels
    widths = {}
    for key, spans in terms.items():
        constant = channels_of(network, *key).width - covered[key]
        if constant < 0:
            raise PruningError(
                f"{key[0]}: the channel groups hold {-constant} channels more than it has; "
                "find the groups of this very network"
            )
        widths[key] = Form(constant, tuple((g, Fraction(n)) for g, n in sorted(spans.items())))
    return widths


def _divided(width: Form, blocks: int) -> Form:
    if width.constant % blocks:
        raise PruningError(f"{width.constant} fixed channels can't be shared by {blocks} blocks")
    terms = tuple((group, entries / blocks) for group, entries in width.terms)
    return Form(width.constant // blocks, terms)


def _named_tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    return list(
        chain(
            network.named_parameters(remove_duplicate=False),
            network.named_buffers(remove_duplicate=False),
        )
    )
