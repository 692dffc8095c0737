"""One network without any of its residual blocks, which are found once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from dse.names import dropped
from dse.pruning.channel_group import ChannelGroup
from dse.pruning.depth import Block, Depth, blocks_named, find_depth, groups_without, without_blocks


@dataclass(frozen=True, eq=False)
class Shortener:
    """Leaves blocks out of one network and its channel groups.

    `drop` is the text of a candidate, as in "features.3,features.5"; None leaves nothing out.

    Attributes:
        network: The whole network; never changed.
        example: An input of it.
    """

    network: nn.Module
    example: Tensor

    @cached_property
    def depth(self) -> Depth:
        """The network's blocks."""
        return find_depth(self.network, self.example)

    def blocks(self, drop: str | None) -> tuple[Block, ...]:
        """Return blocks by their names, in execution order.

        Raises:
            PruningError: If one of them can't be left out.
        """
        return blocks_named(self.depth, dropped(drop)) if drop else ()

    def shortened(self, drop: str | None) -> nn.Module:
        """Return a copy of the network without some blocks; without any, the network itself.

        Raises:
            PruningError: If one of them can't be left out.
        """
        return without_blocks(self.network, self.blocks(drop)) if drop else self.network

    def groups(self, groups: Sequence[ChannelGroup], drop: str | None) -> tuple[ChannelGroup, ...]:
        """Return channel groups without their members in some blocks.

        Raises:
            PruningError: If one of the blocks can't be left out.
        """
        return groups_without(groups, self.blocks(drop)) if drop else tuple(groups)

    def vanishing(self, groups: Sequence[ChannelGroup], drop: str | None) -> frozenset[str]:
        """Name the channel groups that lie in some blocks alone.

        Raises:
            PruningError: If one of the blocks can't be left out.
        """
        left = self.groups(groups, drop)
        return frozenset(one.name for one in left if not one.members)


def shortened(
    network: nn.Module, example: Tensor, groups: Sequence[ChannelGroup], drop: str | None
) -> tuple[nn.Module, tuple[ChannelGroup, ...]]:
    """Return a network and its channel groups without some blocks.

    Args:
        network: The whole network; not changed.
        example: An input of it.
        groups: Its channel groups.
        drop: The blocks, as in "features.3,features.5"; None for none.

    Raises:
        PruningError: If one of them can't be left out.
    """
    shortener = Shortener(network, example)
    return shortener.shortened(drop), shortener.groups(groups, drop)
