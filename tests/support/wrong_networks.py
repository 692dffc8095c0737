"""Factories that a study may name by mistake."""

import sys

from torch import Tensor, nn

from support.searches import small


def seven(num_classes: int) -> nn.Module:
    """Doesn't care how many outputs are wanted."""
    del num_classes
    return small(7)


class Broken(nn.Module):
    """Can't run."""

    def forward(self, images: Tensor) -> Tensor:
        del images
        raise ValueError("no")


def broken(num_classes: int) -> nn.Module:
    """Builds what can't run."""
    del num_classes
    return Broken()


class Lazy(Broken):
    """Has a layer that gets its channels when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.lazy = nn.LazyLinear(8)


def lazy(num_classes: int) -> nn.Module:
    """Builds what can't be pruned."""
    del num_classes
    return Lazy()


def leaving(num_classes: int) -> nn.Module:
    """Ends the process."""
    sys.exit(num_classes)


def number(num_classes: int) -> int:
    """Builds no network."""
    return num_classes
