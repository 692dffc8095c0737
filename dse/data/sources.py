"""The common form of all data sets: labels, and one or two pools of images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits

from dse.data.images import ScaledImages
from dse.data.parts import Images
from dse.data.reading import Reading
from dse.data.summary import PassedOver
from dse.data.targets import Form

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Images with their labels.

    Attributes:
        images: the images.
        targets: label numbers, (n,) int64; zeros if each sample has several values.
        values: values of each sample, (n, labels) float32, for tasks with such targets; else None.
        keys: identifies each image independently of the others, such as by its path; empty if only
            positions do.
        plain: the same images without the data set's own random transforms, if `images` vary and
            that is possible.
    """

    images: Images
    targets: npt.NDArray[np.int64]
    values: Values | None = None
    keys: tuple[str, ...] = ()
    plain: Images | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """A whole data set, before labels are chosen and parts are split.

    Attributes:
        labels: all labels, in the data set's order.
        train: training images.
        validation: the data set's own validation images, if it has any.
        train_origin: location of the training images, as text.
        validation_origin: location of its own validation images, as text.
        notes: one line per decision.
        passed_over: files that aren't used.
        augmentation: effect of the data set's own transforms; empty if there is none.
        pixel_values: how stored values become bytes; empty if the files haven't been read yet.
        form: what the targets are: a class for each sample, any number of labels, values, or masks
            as the last channel of the images.
    """

    labels: tuple[str, ...]
    train: Pool
    validation: Pool | None = None
    train_origin: str = "the data set's own"
    validation_origin: str = "the data set's own"
    notes: tuple[str, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    augmentation: str = ""
    pixel_values: str = ""
    form: Form = "class"


def digits(reading: Reading) -> Source:
    """Load scikit-learn's 1,797 scans of handwritten digits, which are part of its package.

    Args:
        reading: shape of the images.

    Returns:
        The scans with labels "0" to "9", without a validation part.
    """
    scans = load_digits()
    small = torch.from_numpy(scans.images).float().unsqueeze(1) / 16  # stored from 0 to 16
    pool = Pool(images=ScaledImages(small, reading), targets=scans.target.astype(np.int64))
    return Source(
        labels=tuple(map(str, scans.target_names)),
        train=pool,
        pixel_values="scans from 0 to 16, brought to bytes",
    )
