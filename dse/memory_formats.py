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
