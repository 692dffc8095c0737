"""A small residual branch beside a block, after TinyTL's lite residual module.

Cai et al., "TinyTL: Reduce Memory, Not Parameters for Efficient On-Device Learning" (NeurIPS 2020),
section 3.2, and ``LiteResidualModule`` in mit-han-lab/tinyml. As there: average pooling by two, a
convolution with the block's stride, normalisation, ReLU, a 1x1 convolution, normalisation that
starts at zero, bilinear upsampling, added to what the block gives. Otherwise than there: the
convolution is 3x3 without groups, not 5x5 in two (docs/decisions/0006), normalisation is that of
batches, as in the networks it stands beside, and nothing is pretrained.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class SideBranch(nn.Module):
    """The branch of one block; its widths are the block's.

    Args:
        in_channels: of the block's input.
        out_channels: of its output.
        stride: by how much the block's output is smaller than its input.
        device: of the parameters; on ``meta`` they have no values.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, device: torch.device | str
    ) -> None:
        super().__init__()
        # Rounded up, so that a single pixel stays one.
        self.pool = nn.AvgPool2d(2, ceil_mode=True)
        self.conv = nn.Conv2d(
            in_channels, in_channels, 3, stride=stride, padding=1, bias=False, device=device
        )
        self.norm = nn.BatchNorm2d(in_channels, device=device)
        self.act = nn.ReLU(inplace=True)
        self.project = nn.Conv2d(in_channels, out_channels, 1, bias=False, device=device)
        self.last_norm = nn.BatchNorm2d(out_channels, device=device)
        for convolution in (self.conv, self.project):
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.last_norm.weight)

    def forward(self, images: Tensor, output: Tensor) -> Tensor:
        """Add what the branch makes of a block's input to the block's output.

        Args:
            images: (batch, in_channels, height, width).
            output: (batch, out_channels, height, width), each side smaller by the stride.

        Returns:
            The sum, shaped as the output.
        """
        features = self.act(self.norm(self.conv(self.pool(images))))
        features = self.last_norm(self.project(features))
        size = (output.shape[2], output.shape[3])
        added = functional.interpolate(features, size=size, mode="bilinear")
        # Autocast upsamples in 32 bits; the block's own precision goes on.
        return output + added.to(output.dtype)

    def after(self, _block: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Forward hook of the block."""
        summed: Tensor = self(args[0], output)
        return summed


class SideBranches(nn.ModuleDict):
    """The side branches of a network, held at its top and run by hooks of their blocks.

    So the blocks' own modules and tensors keep their names. Where the network runs all of its
    modules one after the other, this one passes on what it is given.
    """

    def forward(self, features: Any) -> Any:
        """Pass on."""
        return features
