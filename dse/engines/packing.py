"""Hold values in 8 bits until the backward pass, at the cost of exact gradients.

After Chen et al., "ActNN: Reducing Training Memory Footprint via 2-Bit Activation Compressed
Training" (2021), with one range per channel of the batch and values rounded to the nearest.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LEVELS = 255  # steps between the least and the largest value of a channel
_IMAGES = 4  # dimensions of a batch of images


@dataclass
class Packed:
    """A value in 8 bits.

    Attributes:
        codes: uint8, of the value's shape.
        low, step: Least value and distance of neighbours, one per channel, broadcastable.
    """

    codes: Tensor
    low: Tensor
    step: Tensor

    def value(self) -> Tensor:
        """Return the value, rounded."""
        return self.codes.to(self.low.dtype).mul_(self.step).add_(self.low)


def packed(value: Tensor, *, spend: bool) -> Packed:
    """Return a value in 8 bits.

    Args:
        value: Images (batch, channels, height, width), or any tensor whose last dimension is that
            of the channels.
        spend: Whether the value may be overwritten. Otherwise it is copied first.
    """
    channels = 1 if value.ndim == _IMAGES else value.ndim - 1
    others = tuple(dim for dim in range(value.ndim) if dim != channels)
    low = value.amin(others, keepdim=True)
    step = value.amax(others, keepdim=True).sub_(low).div_(LEVELS)
    step.clamp_min_(torch.finfo(value.dtype).tiny)
    work = value if spend else value.clone()
    codes = work.sub_(low).div_(step).round_().to(torch.uint8)
    return Packed(codes, low, step)
