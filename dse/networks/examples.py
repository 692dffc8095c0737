"""Example inputs of networks."""

import torch
from torch import Tensor


def example_input(
    batch_size: int, image_size: int, *, channels: int = 3, device: str = "cpu"
) -> Tensor:
    """Return zeros of shape (batch_size, channels, image_size, image_size)."""
    return torch.zeros(batch_size, channels, image_size, image_size, device=device)
