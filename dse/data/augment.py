"""Augments batches of images at random."""

import torch
from torch import Tensor

from dse.names import Augmentation

# Crops are shifted by up to an eighth of the side, like the usual 4 of 32 pixels.
_CROP_SHARE = 8


def augmented(images: Tensor, *, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Augment images at random.

    Args:
        images: (n, channels, height, width).
        how: "flip" mirrors half of the images on average; "crop-flip" also shifts each by up to an
            eighth of its side, filling by reflection; "none" changes nothing.
        generator: source of all randomness.

    Returns:
        Images of the same shape and type.
    """
    if how == "none":
        return images
    number, _, height, width = images.shape
    columns = torch.arange(width).repeat(number, 1)
    flip = torch.rand(number, generator=generator) < 0.5  # noqa: PLR2004 -- every other image
    columns[flip] = columns[flip].flip(1)
    rows = torch.arange(height).repeat(number, 1)
    if how == "crop-flip":
        rows = _reflected(rows + _shift(number, height, generator), height)
        columns = _reflected(columns + _shift(number, width, generator), width)
    batch = torch.arange(number)[:, None, None, None]
    channel = torch.arange(images.shape[1])[None, :, None, None]
    return images[batch, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _shift(number: int, side: int, generator: torch.Generator) -> Tensor:
    """Draw one shift per image, at most an eighth of the side: (number, 1) int64."""
    most = side // _CROP_SHARE
    return torch.randint(-most, most + 1, (number, 1), generator=generator)


def _reflected(positions: Tensor, side: int) -> Tensor:
    """Mirror positions outside 0..side-1 back inside, without repeating the edge."""
    return (side - 1) - ((side - 1) - positions.abs()).abs()
