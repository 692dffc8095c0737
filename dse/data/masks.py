"""A folder of images with a mask of classes for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dse.data.decode import opened
from dse.data.files import Passed, images_below, subfolders
from dse.data.images import FileImages
from dse.data.layout import kind_of
from dse.data.reading import Reading
from dse.data.sources import Pool, Source
from dse.data.targets import (
    Mask,
    TargetReading,
    check_mask,
    check_sizes,
    mask_values,
    numbered_classes,
    scaled_mask,
    upright_size,
)
from dse.errors import DataError
from dse.textfiles import exists

_IMAGES = ("images", "image", "imgs", "img")
_MASKS = ("masks", "mask", "labels", "annotations")


@dataclass(frozen=True)
class MaskedImages(FileImages):
    """Images in files with their masks, which become the last channel.

    Attributes:
        masks: file of each image's mask.
        target: how the masks are read.
    """

    masks: Sequence[Path] = ()
    target: TargetReading = TargetReading(form="mask")  # noqa: RUF009  # frozen

    def sizes(self) -> list[int]:
        """Return the size of each image and its mask in bytes."""
        of_masks = FileImages(self.masks, self.reading).sizes()
        return [one + other for one, other in zip(super().sizes(), of_masks, strict=True)]

    def fetch(self, positions: Tensor) -> Tensor:
        """Decode images with their masks: (n, channels + 1, height, width) uint8.

        Raises:
            UnreadableImageError: if a file can't be decoded; the message names it.
            DataError: if a mask doesn't fit its image, or has an unknown class.
        """
        images = super().fetch(positions)
        if not len(positions):
            shape = (0, len(self.reading.shape) and self.reading.channels + 1)
            return torch.empty((*shape, *self.reading.shape[1:]), dtype=torch.uint8)
        masks = [self._mask(one) for one in positions.tolist()]
        return torch.cat([images, torch.from_numpy(np.stack(masks))[:, None]], dim=1)

    def counts(self, positions: Sequence[int]) -> Tensor:
        """Return the number of pixels of each class, (classes,) int64."""
        found = np.zeros(self.target.classes, dtype=np.int64)
        for position in positions:
            mask = self._mask(position)
            known = mask[mask != self.target.ignore]
            found += np.bincount(known, minlength=self.target.classes)
        return torch.from_numpy(found)

    def _mask(self, position: int) -> Mask:
        values, path = read_mask(self.masks[position]), self.masks[position]
        with opened(self.paths[position]) as image:
            size = upright_size(image)
        try:
            check_sizes(values, size)
            check_mask(values, self.target)
        except ValueError as error:
            raise DataError(f"{path} {error}") from error
        return scaled_mask(values, self.reading)


def read_mask(path: Path) -> Mask:
    """Read the classes of a mask's pixels, (height, width).

    Raises:
        UnreadableImageError: if it can't be decoded.
        DataError: if it holds colours, or numbers that are no classes.
    """
    with opened(path) as image:
        image.load()
        held = image.copy()
    try:
        return mask_values(held)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} {error}") from error


def mask_folder(
    root: Path, *, reading: Reading, ignore: int, labels: Sequence[str] | None = None
) -> Source:
    """Find images and masks below a folder; without labels, all masks are read once.

    Args:
        root: folder with the folders `images` and `masks`, or with parts (`train`, and `val` or
            `test`) that hold both. A mask has its image's name, up to the suffix.
        reading: shape of the images after decoding.
        ignore: value of pixels that belong to no class.
        labels: name of each class, in the order of the masks' numbers from 0; numbers if None.

    Raises:
        DataError: if a folder or a mask is missing, or there are fewer than two classes.
    """
    if not exists(root) or not root.is_dir():
        raise DataError(f"data.root: {root} is not a folder: name one with images/ and masks/")
    parts = {kind_of(one.name): one for one in subfolders(root) if _folder_of(one, _IMAGES)}
    train = parts.get("train", root)
    held = (parts.get("validation") or parts.get("test")) if train != root else None
    passed = Passed(root)
    pairs = _pairs(train, passed)
    held_pairs = _pairs(held, passed) if held else []
    if labels is None:
        labels = _numbered([mask for _, mask in (*pairs, *held_pairs)], ignore, root)
    if len(labels) < 2:  # noqa: PLR2004  # nothing to tell apart
        raise DataError(f"data.labels names {labels[0]!r} alone: masks need two classes or more")
    target = TargetReading(form="mask", classes=len(labels), ignore=ignore)

    def pool(folder: Path, found: list[tuple[Path, Path]]) -> Pool:
        return Pool(
            images=MaskedImages(
                [image for image, _ in found],
                reading,
                masks=[mask for _, mask in found],
                target=target,
            ),
            targets=np.zeros(len(found), dtype=np.int64),
            keys=tuple(image.relative_to(folder).as_posix() for image, _ in found),
        )

    return Source(
        labels=tuple(labels),
        train=pool(train, pairs),
        validation=pool(held, held_pairs) if held else None,
        train_origin=f"{train.name}/",
        validation_origin=f"{held.name}/" if held else "",
        passed_over=passed.summaries(),
        form="mask",
    )


def holds_masks(root: Path) -> bool:
    """Return whether a folder, or a part in it, has the folders of images and of masks."""
    if not exists(root) or not root.is_dir():
        return False
    places = [root, *(one for one in subfolders(root) if kind_of(one.name) == "train")]
    return any(_folder_of(one, _IMAGES) and _folder_of(one, _MASKS) for one in places)


def _folder_of(folder: Path, names: Sequence[str]) -> Path | None:
    return next((one for one in subfolders(folder) if one.name.lower() in names), None)


def _pairs(folder: Path, passed: Passed) -> list[tuple[Path, Path]]:
    """Return the images of a part, each with its mask."""
    images, masks = _folder_of(folder, _IMAGES), _folder_of(folder, _MASKS)
    if images is None or masks is None:
        missing = "images/" if images is None else "masks/"
        raise DataError(
            f"data.root: {folder} has no folder {missing}: a segmentation needs images/ and masks/"
        )
    of = {one.relative_to(masks).with_suffix(""): one for one in images_below(masks, passed)}
    pairs = []
    for image in images_below(images, passed):
        mask = of.pop(image.relative_to(images).with_suffix(""), None)
        if mask is None:
            raise DataError(f"{image} has no mask of its name in {masks}: add it")
        pairs.append((image, mask))
    for mask in of.values():
        passed.add("a mask without an image", mask)
    if not pairs:
        raise DataError(f"data.root: {images} holds no images")
    return pairs


def _numbered(masks: Sequence[Path], ignore: int, root: Path) -> tuple[str, ...]:
    """Return a number for each class that the masks hold, from 0 to the largest."""
    place = f"data.root: the masks in {root}"
    try:
        return numbered_classes(map(read_mask, masks), ignore=ignore, place=place)
    except ValueError as error:
        raise DataError(str(error)) from error
