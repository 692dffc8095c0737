"""Memory formats by the names that studies give them."""

import torch

from dse.names import MemoryFormat

MEMORY_FORMATS: dict[MemoryFormat, torch.memory_format] = {
    "contiguous": torch.contiguous_format,
    "channels-last": torch.channels_last,
}
