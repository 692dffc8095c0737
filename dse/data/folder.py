"""Image folders: finds the layout and lists the files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dse.data.files import SUFFIXES, Passed, images_below, reason_against
from dse.data.images import FileImages
from dse.data.layout import Folders, Layout, find_layout, loose_files
from dse.data.reading import Reading
from dse.data.sources import Pool, Source
from dse.errors import DataError
from dse.textfiles import exists


def image_folder(root: Path, *, reading: Reading, labels: Sequence[str] | None = None) -> Source:
    """Find the images below a folder, without decoding any.

    Args:
        root: folder with a folder of images for each label, or with parts that hold such folders;
            see `dse.data.layout.find_layout`. Without a validation part, `test/` is used instead.
        reading: shape of the images after decoding.
        labels: labels to use; the folders of other labels aren't read. None uses all.

    Returns:
        A source with labels in alphabetical order: all, or those of `labels` that there are; if
        one of those is missing, also all others.

    Raises:
        DataError: if the folder doesn't exist, there are fewer than two labels, a label has no
            images, or the validation part has other labels than the training part.
    """
    if not exists(root) or not root.is_dir():
        what = "is not a folder" if exists(root) else "does not exist"
        raise DataError(f"data.root: {root} {what}: name a folder with a subfolder for each label")
    layout = find_layout(root, labels=labels)
    everything = find_layout(root).train if labels and len(layout.train) < len(labels) else {}
    names = tuple(sorted({*layout.train, *everything}))
    if len(names) < 2 and not labels:  # noqa: PLR2004 -- one label teaches nothing
        found = f"only the subfolder {names[0]!r}" if names else "no subfolders"
        raise DataError(
            f"data.root: {layout.top} has {found}: put the images of each label into a subfolder "
            "of its own, at least two"
        )
    _check_same_labels(layout)
    passed = Passed(root)
    for path in loose_files(layout):
        passed.add(reason_against(path) or "an image beside the class folders", path)
    train = _pool(layout.train, names, reading, passed)
    validation = None
    if layout.validation is not None:
        validation = _pool(layout.validation, names, reading, passed)
    return Source(
        labels=names,
        train=train,
        validation=validation,
        train_origin=layout.train_origin,
        validation_origin=layout.validation_origin,
        notes=layout.notes,
        passed_over=passed.summaries(),
    )


def _check_same_labels(layout: Layout) -> None:
    if layout.validation is None:
        return
    for one, other, first, second in (
        (layout.validation, layout.train, layout.validation_origin, layout.train_origin),
        (layout.train, layout.validation, layout.train_origin, layout.validation_origin),
    ):
        if unknown := sorted(set(one) - set(other)):
            near = next((each for each in other if each.casefold() == unknown[0].casefold()), None)
            hint = f" (it has {near!r}: rename one of them)" if near else ""
            raise DataError(
                f"data.root: in {layout.top}, the label {unknown[0]!r} is in {first} but not in "
                f"{second}{hint}: both need the same labels, or list those to use in data.labels"
            )


def _pool(folders: Folders, labels: Sequence[str], reading: Reading, passed: Passed) -> Pool:
    paths: list[Path] = []
    keys: list[str] = []
    targets: list[int] = []
    for number, label in enumerate(labels):
        if (folder := folders.get(label)) is None:
            continue
        found = images_below(folder, passed)
        if not found:
            raise DataError(_without_images(folder, passed.root))
        paths += found
        keys += [path.relative_to(folder).as_posix() for path in found]
        targets += [number] * len(found)
    return Pool(
        images=FileImages(paths, reading),
        targets=np.array(targets, dtype=np.int64),
        keys=tuple(keys),
    )


def _without_images(folder: Path, root: Path) -> str:
    passed = Passed(root)
    images_below(folder, passed)
    found = "; ".join(one.text for one in passed.summaries())
    return (
        f"data.root: {folder} holds no images{f' ({found})' if found else ''}: each label needs "
        f"images ({' '.join(sorted(SUFFIXES))}), or name the labels to use in data.labels"
    )
