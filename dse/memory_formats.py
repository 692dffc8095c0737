"""Memory formats by the names that studies give them."""

import torch

from dse.names import MemoryFormat

MEMORY_FORMATS: dict[MemoryFormat, torch.memory_format] = {
    "contiguous": torch.contiguous_format,
    "channels-last": torch.channels_last,
}
_IMAGE_BATCH = 4  # dimensions that channels-last is defined for


def laid_out(samples: torch.Tensor, memory_format: MemoryFormat) -> torch.Tensor:
    """Return images in a memory format; anything but a batch of images is left contiguous."""
    if samples.ndim != _IMAGE_BATCH:
        return samples.contiguous()
    return samples.contiguous(memory_format=MEMORY_FORMATS[memory_format])
