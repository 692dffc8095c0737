"""Image folders: one subfolder for each label, with or without train/ and val/ above them."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dse.data.images import FileImages
from dse.data.sources import Pool, Source
from dse.errors import DataError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
_TRAIN = "train"
# In this order: where there are two, "test" is left alone.
_VALIDATION = ("val", "validation", "valid", "test")


def image_folder(root: Path, *, image_size: int) -> Source:
    """Find the images below a folder; none is decoded yet.

    Args:
        root: Holds a subfolder of images for each label, or train/ with such subfolders, and
            beside it val/, validation/, valid/ or test/ if there is a validation part. Files that
            aren't images by their suffix, and hidden ones, are passed over.
        image_size: Side of the images once decoded, in pixels.

    Returns:
        Labels in alphabetical order.

    Raises:
        DataError: There is no such folder, fewer than two labels, a label without images, or the
            validation part has other labels than the training part.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"data.root: {root} {what}: name a folder with a subfolder for each label")
    train = root / _TRAIN if (root / _TRAIN).is_dir() else root
    labels = tuple(_subfolders(train))
    if len(labels) < 2:  # noqa: PLR2004 -- one label teaches nothing
        found = f"only the subfolder {labels[0]!r}" if labels else "no subfolders"
        raise DataError(
            f"data.root: {train} has {found}: put the images of each label into a subfolder of "
            "its own, at least two"
        )
    validation = next((root / name for name in _VALIDATION if (root / name).is_dir()), None)
    if train == root or validation is None:
        return Source(labels=labels, train=_pool(train, labels, image_size))
    if unknown := sorted(set(_subfolders(validation)) - set(labels)):
        raise DataError(
            f"data.root: {validation} has the label {unknown[0]!r}, which {train} has not: "
            "both need the same subfolders"
        )
    return Source(
        labels=labels,
        train=_pool(train, labels, image_size),
        validation=_pool(validation, labels, image_size),
    )


def _subfolders(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir() if one.is_dir() and one.name[0] != ".")


def _pool(folder: Path, labels: tuple[str, ...], image_size: int) -> Pool:
    found = [_images(folder / label) for label in labels]
    return Pool(
        images=FileImages([path for paths in found for path in paths], image_size),
        targets=np.repeat(np.arange(len(labels)), [len(paths) for paths in found]),
    )


def _walked(label: Path) -> Iterator[tuple[str, list[str]]]:
    """Walk a label's folder and what its links lead to: each folder, with the files in it.

    Raises:
        DataError: A link leads back to the folder it lies in or above it, so that images would
            count many times, and under labels that aren't theirs.
    """
    for parent, folders, names in os.walk(label, followlinks=True):
        above = Path(parent).resolve()
        for name in folders:
            link = Path(parent, name)
            if link.is_symlink() and above.is_relative_to(link.resolve()):
                raise DataError(
                    f"data.root: {link} is a link back to {link.resolve()}, which holds it: "
                    "take the link out"
                )
        yield parent, names


def _images(folder: Path) -> list[Path]:
    """List the images at any depth below a label's folder, in the same order everywhere."""
    paths = [
        Path(parent) / name
        for parent, names in _walked(folder)
        for name in names
        if name.lower().endswith(_SUFFIXES) and not name.startswith(".")
    ]
    if not paths:
        reason = "holds no images" if folder.is_dir() else "does not exist"
        raise DataError(
            f"data.root: {folder} {reason}: each label needs images ({' '.join(_SUFFIXES)})"
        )
    return sorted(paths, key=lambda path: path.relative_to(folder).as_posix())
