"""What every kind of data set comes down to: labels, and one or two pools of images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits

from dse.data.images import ScaledImages
from dse.data.parts import Images
from dse.data.summary import PassedOver


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Images with their labels.

    Attributes:
        images: The images.
        targets: (n,) int64, positions among the source's labels.
        keys: What identifies each image whatever other images there are, such as its file's place;
            empty where only its position does.
        plain: The same images without the data set's own random transforms, where `images` vary
            and that can be had.
    """

    images: Images
    targets: npt.NDArray[np.int64]
    keys: tuple[str, ...] = ()
    plain: Images | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """A whole data set before labels are chosen and parts are split.

    Attributes:
        labels: All its labels, in its own order.
        train: Images to train on.
        validation: Its own validation images, if it has any.
        train_origin: Where the training images lie, in words.
        validation_origin: Likewise for its own validation images.
        notes: What was decided about it, a line each.
        passed_over: Files that aren't used.
        augmentation: What the data set's own transforms do; empty where they do nothing.
        pixel_values: How stored values become bytes; empty where the files are still to be read.
    """

    labels: tuple[str, ...]
    train: Pool
    validation: Pool | None = None
    train_origin: str = "its training images"
    validation_origin: str = "its validation images"
    notes: tuple[str, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    augmentation: str = ""
    pixel_values: str = ""


def digits(image_size: int) -> Source:
    """Read scikit-learn's 1,797 scans of handwritten digits, which lie inside its wheel.

    Args:
        image_size: Side of the images, in pixels.

    Returns:
        The scans with the labels "0" to "9", without a validation part of their own.
    """
    scans = load_digits()
    small = torch.from_numpy(scans.images).float().unsqueeze(1) / 16  # stored from 0 to 16
    pool = Pool(images=ScaledImages(small, image_size), targets=scans.target.astype(np.int64))
    return Source(
        labels=tuple(map(str, scans.target_names)),
        train=pool,
        pixel_values="scans from 0 to 16, brought to bytes",
    )
