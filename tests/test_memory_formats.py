"""Images, volumes and weights in a memory format."""

import torch
from torch import nn

from dse.memory_formats import in_format, laid_out


def test_layers_of_images_and_of_volumes_are_laid_out_together() -> None:
    network = nn.ModuleList([nn.Conv1d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv3d(4, 4, 3)])
    stock = [layer.weight.stride() for layer in network]
    line, plane, volume = in_format(network, "channels-last")
    assert line.weight.stride() == stock[0]
    assert plane.weight.is_contiguous(memory_format=torch.channels_last)
    assert volume.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert [layer.weight.stride() for layer in in_format(network, "contiguous")] == stock


def test_volumes_have_their_channels_last_and_sequences_stay() -> None:
    assert laid_out(torch.zeros(2, 3, 4, 4, 4), "channels-last").stride(1) == 1
    assert laid_out(torch.zeros(2, 3, 4), "channels-last").is_contiguous()
