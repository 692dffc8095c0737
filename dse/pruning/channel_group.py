"""Channel groups as plain, comparable data."""

from dataclasses import dataclass

from torch import nn

Dimension = str | int
"""``"out"`` or ``"in"`` of a convolution or linear layer; ``"both"`` if output channels are input
channels (depthwise convolutions, normalisation layers, PReLU); the axis of a bare parameter or
buffer; or the name of a module's attribute that counts positions, such as ``"num_heads"``.
"""


@dataclass(frozen=True)
class Member:
    """One dimension of a module or of a bare parameter that a group's channels run along.

    Attributes:
        module: Dotted name of the module, or of the parameter if it belongs to no standard layer.
        dimension: Which dimension (see ``Dimension``).
        start: Position of channel 0 in the dimension. Above 0 if other channels precede the group's
            in a concatenation.
        span: Number of consecutive positions per channel. Above 1 if feature maps were flattened,
            or a channel is an attention head.
        summed: Whether a bare parameter is multiplied with the channels of other layers along this
            axis, and the products are added up, as along the ``"in"`` of a layer.
    """

    module: str
    dimension: Dimension
    start: int = 0
    span: int = 1
    summed: bool = False

    @property
    def reads(self) -> bool:
        """Whether the network reads the channels of other layers through this dimension."""
        return self.dimension == "in" or self.summed

    def positions(self, channel: int) -> range:
        """Return the positions of one channel of the group in the dimension."""
        first = self.start + channel * self.span
        return range(first, first + self.span)


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of several layers that can only be removed together.

    Attributes:
        name: Name of the first executed convolution or linear layer that produces the channels.
        channels: Number of channels in the unpruned network.
        multiple: Every kept count must be a multiple of this number of blocks, into which grouped
            convolutions or group normalisation divide the channels. The blocks are contiguous, and
            each must keep equally many channels. 1 if nothing divides the channels.
        members: Every dimension that shrinks with the group: producers first, then in execution
            order.
        fewest: Minimum count for which memory can be predicted. 2 for attention heads: with one,
            PyTorch returns views where it copies several.
    """

    name: str
    channels: int
    multiple: int
    members: tuple[Member, ...]
    fewest: int = 1


def is_axis(member: Member) -> bool:
    """Whether a member is an axis of a bare parameter or buffer."""
    return isinstance(member.dimension, int)


def owner_of(network: nn.Module, name: str) -> str:
    """Return the module of this name, or the one that a bare parameter of this name belongs to."""
    owner, _, last = name.rpartition(".")
    if not name or last in network.get_submodule(owner)._modules:  # noqa: SLF001  # no parameters
        return name
    return owner.partition(".parametrizations.")[0]
