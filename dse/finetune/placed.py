"""Networks on a training's device, in its memory format, and back on the CPU."""

import torch
from torch import nn

from dse.config import TrainingConfig
from dse.memory_formats import MEMORY_FORMATS


def placed(network: nn.Module, settings: TrainingConfig) -> nn.Module:
    """Move a network to the device of a training, in its memory format; return the network."""
    return network.to(settings.device).to(memory_format=MEMORY_FORMATS[settings.memory_format])


def taken_back(network: nn.Module) -> nn.Module:
    """Move a trained network to the CPU, contiguous and in eval mode; return the network."""
    return network.eval().to("cpu").to(memory_format=torch.contiguous_format)
