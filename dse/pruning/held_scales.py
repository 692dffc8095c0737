"""Layers that normalise channels by one another, with their scale held fixed.

Removing some channels changes the scale of the others in such a layer by design. To see whether
channels affect each other in any other way, these layers divide by a number that stays the same.
"""

import torch
from torch import Tensor, nn

_MIXING_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.LocalResponseNorm)


def hold_scales(network: nn.Module) -> None:
    """Replace what these layers of a network compute, in place.

    In the first pass, each call divides its input by the input's root mean square. Passes after a
    `rewind` divide by the same numbers. Signals thus keep their scale at any depth, and channels do
    not affect each other.
    """
    for module in network.modules():
        if isinstance(module, _MIXING_NORMS):
            module.forward = _HeldScale()  # type: ignore[method-assign]


def rewind(network: nn.Module) -> None:
    """Start a new pass of a network, or of a copy of it, with the scales of the first one."""
    for module in network.modules():
        if isinstance(held := vars(module).get("forward"), _HeldScale):
            held.call = 0


class _HeldScale:
    """The forward pass of such a layer.

    Attributes:
        call: Number of calls so far in this pass.
    """

    def __init__(self) -> None:
        self._scales: list[Tensor] = []
        self.call = 0

    def __call__(self, x: Tensor) -> Tensor:
        if self.call == len(self._scales):
            scale = x.pow(2).mean().sqrt()
            self._scales.append(scale if scale > 0 else torch.ones_like(scale))
        held = self._scales[self.call]
        self.call += 1
        return x / held
