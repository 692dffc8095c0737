"""A small residual branch beside a block, after TinyTL's lite residual module.

Cai et al., "TinyTL: Reduce Memory, Not Parameters for Efficient On-Device Learning" (NeurIPS 2020),
section 3.2, and ``LiteResidualModule`` in mit-han-lab/tinyml. As in the original, a branch consists
of 2x2 average pooling, a convolution with the block's stride, normalisation, ReLU, a 1x1
convolution, normalisation whose scale starts at zero, and bilinear upsampling; the result is added
to the block's output. Unlike the original, the convolution is an ungrouped 3x3 instead of a 5x5 in
two groups (docs/decisions/0006), the normalisation is batch normalisation, as in the networks that
get branches, and the branches are not pretrained.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class SideBranch(nn.Module):
    """The side branch of one block.

    Args:
        in_channels: Channels of the block's input.
        out_channels: Channels of the block's output.
        stride: Factor by which the block's output is smaller than its input, per side.
        device: Device of the parameters. On ``meta`` they have no values.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, device: torch.device | str
    ) -> None:
        super().__init__()
        # ceil_mode, so that an image of one pixel does not become empty.
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
        # A zero scale: the branch adds nothing until it is trained.
        nn.init.zeros_(self.last_norm.weight)

    def forward(self, images: Tensor, output: Tensor) -> Tensor:
        """Add the branch's output to the block's output.

        Args:
            images: The block's input, of shape (batch, in_channels, height, width).
            output: The block's output, of shape (batch, out_channels, height / stride,
                width / stride).

        Returns:
            The sum, with the shape and type of ``output``.
        """
        features = self.act(self.norm(self.conv(self.pool(images))))
        features = self.last_norm(self.project(features))
        size = (output.shape[2], output.shape[3])
        added = functional.interpolate(features, size=size, mode="bilinear")
        # Autocast upsamples in float32. Return to the precision of the block's output.
        return output + added.to(output.dtype)

    def after(self, _block: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Forward hook that adds the branch to its block's output."""
        summed: Tensor = self(args[0], output)
        return summed


class SideBranches(nn.ModuleDict):
    """All side branches of a network. Hooks of the blocks run them.

    They are a child of the network and not of the blocks, so the names of the blocks' modules and
    tensors do not change. In an ``nn.Sequential`` network this module is run too, and then returns
    its input.
    """

    def forward(self, features: Any) -> Any:
        """Return the input unchanged."""
        return features
