"""A copy of a network whose weights are arbitrary but known to pass every signal on."""

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dse.pruning.resize import copy_with_tensors


def scratch_copy(network: nn.Module) -> nn.Module:
    """Copy a network in eval mode with random parameters on the CPU, all requiring gradients.

    What is found out on such a copy depends on the architecture alone: no weight is zero, no
    channel dead, no layer frozen, and a network on the meta device serves as well as a real one.

    Args:
        network: Isn't changed; buffers other than running statistics keep their contents.
    """
    generator = torch.Generator().manual_seed(0)
    statistics = {
        f"{name}.{key}".strip("."): float(key == "running_var")
        for name, module in network.named_modules()
        if isinstance(module, _NormBase)
        for key in ("running_mean", "running_var")
    }
    buffers = {name for name, _ in network.named_buffers()}

    def replaced(name: str, tensor: Tensor) -> Tensor:
        if name in statistics:
            return torch.full(tensor.shape, statistics[name], dtype=tensor.dtype)
        if name in buffers:
            return (
                torch.zeros_like(tensor, device="cpu") if tensor.is_meta else tensor.cpu().clone()
            )
        return _random(tensor, generator)

    copied = copy_with_tensors(network, replaced)
    for parameter in copied.parameters():
        parameter.requires_grad_(True)  # noqa: FBT003 (torch's own signature)
    return copied.eval()


def _random(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Weights that keep the signal's scale (He et al. 2015), scales near 1."""
    values = torch.empty(tensor.shape, dtype=tensor.dtype)
    if tensor.dim() > 1 and tensor[0].numel() > 1:
        bound = math.sqrt(6 / tensor[0].numel())
        return values.uniform_(-bound, bound, generator=generator)
    return values.uniform_(0.5, 1.5, generator=generator)
