"""Networks whose training step is run by another engine than stock PyTorch."""

from abc import abstractmethod
from collections.abc import Callable

from torch import nn

Announce = Callable[[str, bool], None]
"""Called with the name of a block, and whether it begins or ends."""


class EngineNetwork(nn.Module):
    """A network that computes another one's outputs and gradients in its own way.

    It has the other network's parameters, buffers and submodules, under the same names.

    Attributes:
        announce: Called with the name of every block that begins or ends. The memory model uses it
            to assign what it records to blocks.
    """

    announce: Announce | None = None

    @property
    def plan_text(self) -> str:
        """Text that is equal for equal plans, for digests."""
        return ""

    @property
    @abstractmethod
    def stock(self) -> nn.Module:
        """The network that stock PyTorch runs."""

    @abstractmethod
    def on(self, stock: nn.Module) -> "EngineNetwork":
        """Return the same engine, with the same plan, for a copy of the stock network."""


def stock_of(network: nn.Module) -> nn.Module:
    """Return the network that stock PyTorch runs."""
    return network.stock if isinstance(network, EngineNetwork) else network
