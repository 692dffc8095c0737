"""Memory formats by the names that studies give them."""

import torch
from torch import nn

from dse.names import MemoryFormat

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Formats with the channels last, by a tensor's dimensions: of images and of volumes."""

MEMORY_FORMATS: dict[MemoryFormat, dict[int, torch.memory_format]] = {
    "contiguous": dict.fromkeys(CHANNELS_LAST, torch.contiguous_format),
    "channels-last": CHANNELS_LAST,
}


def laid_out(samples: torch.Tensor, memory_format: MemoryFormat) -> torch.Tensor:
    """Return images or volumes in a memory format; other tensors are left contiguous."""
    layout = MEMORY_FORMATS[memory_format].get(samples.ndim, torch.contiguous_format)
    return samples.contiguous(memory_format=layout)


def in_format(network: nn.Module, memory_format: MemoryFormat) -> nn.Module:
    """Lay out a network's weights in a memory format, and return it.

    ``Module.to`` takes one format for all weights, so it fails for those of 3-d convolutions.
    """
    formats = MEMORY_FORMATS[memory_format]
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim in formats:
            tensor.data = tensor.data.to(memory_format=formats[tensor.ndim])
    return network


def prefers_channels_last(tensor: torch.Tensor) -> bool:
    """Whether PyTorch reads the strides as channels-last. Ambiguous ones count as contiguous."""
    if tensor.ndim not in CHANNELS_LAST or tensor.stride(1) == 0:
        return False
    smallest = 0
    for dimension in (1, *range(tensor.ndim - 1, 1, -1), 0):
        size, stride = tensor.shape[dimension], tensor.stride(dimension)
        if size == 0 or stride < smallest or (dimension == 0 and smallest == tensor.stride(1)):
            return False
        smallest = stride * size if size > 1 else stride
    return True


def memory_format_of(tensor: torch.Tensor) -> torch.memory_format:
    """Return the format that PyTorch's operators read off a tensor's strides."""
    if prefers_channels_last(tensor):
        return CHANNELS_LAST[tensor.ndim]
    return torch.contiguous_format
