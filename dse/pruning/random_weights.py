"""Copy a network with random weights through which every signal passes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dse.pruning.channel_group import ChannelGroup
from dse.pruning.resize import resized_with


def randomised_copy(
    network: nn.Module,
    groups: Sequence[ChannelGroup] = (),
    channels: Sequence[int] = (),
    *,
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Copy a network in eval mode with random parameters on the CPU.

    What is observed on the copy depends on the architecture only: no weight is zero and no channel
    is dead. A network on the meta device can be copied, too.

    Args:
        network: The network. It is not changed. Buffers other than running statistics are copied.
        groups: Groups whose channel counts change.
        channels: One count per group.
        seed: Seed of the random parameters.
        dtype: Type of all floating-point tensors. If None, each keeps its own.
    """
    generator = torch.Generator().manual_seed(seed)
    statistics = {
        f"{name}.{key}".strip("."): float(key == "running_var")
        for name, module in network.named_modules()
        if isinstance(module, _NormBase)
        for key in ("running_mean", "running_var")
    }
    buffers = {name for name, _ in network.named_buffers()}

    def make(name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
        kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        if name in statistics:
            return torch.full(shape, statistics[name], dtype=kind)
        if name in buffers:
            copied = tensor.detach().to(kind, copy=True)
            copied = torch.zeros_like(copied, device="cpu") if tensor.is_meta else copied.cpu()
            for axis, size in enumerate(shape):  # a buffer along channels keeps the first ones
                copied = copied.narrow(axis, 0, size)
            return copied.contiguous()
        return _random(shape, kind, generator)

    randomised = resized_with(network, groups, channels, make)
    randomised.eval()  # not chained: a network's own train() may return nothing
    return randomised


def _random(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Draw weights that preserve the signal's scale (He et al. 2015), or scales near 1."""
    values = torch.empty(shape, dtype=dtype)
    fan_in = math.prod(shape[1:])
    if fan_in > 1:
        bound = math.sqrt(6 / fan_in)
        return values.uniform_(-bound, bound, generator=generator)
    return values.uniform_(0.5, 1.5, generator=generator)
