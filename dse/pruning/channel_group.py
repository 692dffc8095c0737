"""What a channel group is: plain, comparable data that knows nothing of any library."""

from dataclasses import dataclass
from typing import Literal

Dimension = Literal["out", "in", "both"] | int


@dataclass(frozen=True)
class Member:
    """One dimension of one module, or of one bare parameter, along which a group's channels lie.

    Attributes:
        module: The module's dotted name, or the parameter's own when it belongs to no standard
            layer.
        dimension: ``"out"`` or ``"in"`` of a convolution or linear layer; ``"both"`` where the two
            are one (depthwise convolutions, normalisations, PReLU); an axis for a bare parameter.
        start: The position that channel 0 takes in that dimension; it is above 0 where a
            concatenation puts other channels first.
        span: Consecutive positions per channel; above 1 where feature maps were flattened.
    """

    module: str
    dimension: Dimension
    start: int = 0
    span: int = 1

    def positions(self, channel: int) -> range:
        """Positions in the dimension that belong to one channel of the group."""
        first = self.start + channel * self.span
        return range(first, first + self.span)


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of several layers that can only be removed together.

    Attributes:
        name: The first executed convolution or linear layer that produces the channels.
        channels: How many there are in the unpruned network.
        multiple: What every kept count must be a multiple of, because grouped convolutions or
            group normalisations divide the channels into that many equal blocks; 1 where nothing
            does. The blocks are contiguous, and each must keep as many channels as the others.
        members: Everything that shrinks with the group, producers first, in execution order.
    """

    name: str
    channels: int
    multiple: int
    members: tuple[Member, ...]
