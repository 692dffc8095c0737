"""Networks on a training's device, in its memory format, and back on the CPU."""

from torch import nn

from dse.config import TrainingConfig
from dse.memory_formats import in_format


def placed(network: nn.Module, settings: TrainingConfig) -> nn.Module:
    """Move a network to the device of a training, in its memory format; return the network."""
    return in_format(network.to(settings.device), settings.memory_format)


def taken_back(network: nn.Module) -> nn.Module:
    """Move a trained network to the CPU, contiguous and in eval mode; return the network."""
    return in_format(network.eval().to("cpu"), "contiguous")
