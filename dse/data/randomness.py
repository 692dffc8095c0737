"""Detects random transforms in a data set, and builds the same data set without them."""

import copy
from typing import Any

from torch.utils.data import Dataset, Subset

from dse.data.items import DatasetImages, spread
from dse.data.seeding import random_state_kept, seed_everything
from dse.digests import raw_digest

_SAMPLE = 16
_READS = 4  # per item; a transform applied to every tenth image is missed once in a thousand


def varies(images: DatasetImages) -> bool:
    """Return whether reading an item again gives a different image.

    A sample of the items is read several times. The states of global generators are restored.

    Raises:
        DataError: if an item can't be read.
    """
    with random_state_kept():
        for position in spread(len(images), _SAMPLE):
            first = _digest(images, position)
            if any(_digest(images, position) != first for _ in range(_READS - 1)):
                return True
    return False


def repeatable(images: DatasetImages) -> bool:
    """Return whether a varying item is the same image after the same seed.

    It isn't if its transforms draw from a generator of their own.

    Raises:
        DataError: if an item can't be read.
    """
    with random_state_kept():
        for position in spread(len(images), _SAMPLE):
            digests = set()
            for _ in range(2):
                seed_everything(0)
                digests.add(_digest(images, position))
            if len(digests) > 1:
                return False
    return True


def plain_twin(train: Dataset[Any], validation: Dataset[Any] | None) -> Dataset[Any] | None:
    """Return the training set with the transforms of the validation set; None if impossible.

    Both must be of one class and keep their transform in `transform`, like torchvision's data sets,
    or be a Subset of such a data set. The caller must check that the result no longer varies.
    """
    if validation is None or type(train) is not type(validation):
        return None
    twin = copy.copy(train)
    if isinstance(train, Subset) and isinstance(validation, Subset):
        inner = plain_twin(train.dataset, validation.dataset)
        if inner is None or not isinstance(twin, Subset):
            return None
        twin.dataset = inner
        return twin
    changed = False
    for name in ("transform", "transforms"):
        if name in vars(train) and name in vars(validation):
            setattr(twin, name, vars(validation)[name])
            changed = True
    return twin if changed else None


def _digest(images: DatasetImages, position: int) -> bytes:
    return raw_digest(images.content(position))
