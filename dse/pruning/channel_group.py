"""Channel groups as plain, comparable data that depends on no library."""

from dataclasses import dataclass
from typing import Literal

Dimension = Literal["out", "in", "both"] | int


@dataclass(frozen=True)
class Member:
    """One dimension of a module or of a bare parameter that a group's channels run along.

    Attributes:
        module: Dotted name of the module, or of the parameter if it belongs to no standard layer.
        dimension: ``"out"`` or ``"in"`` of a convolution or linear layer; ``"both"`` if output
            channels are input channels (depthwise convolutions, normalisation layers, PReLU); the
            axis of a bare parameter.
        start: Position of channel 0 in the dimension. Above 0 if other channels precede the group's
            in a concatenation.
        span: Number of consecutive positions per channel. Above 1 if feature maps were flattened.
    """

    module: str
    dimension: Dimension
    start: int = 0
    span: int = 1

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
    """

    name: str
    channels: int
    multiple: int
    members: tuple[Member, ...]
