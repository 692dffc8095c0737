"""Finds the parts and the labels in a tree of folders.

Folders are judged by their content, not only by their names: `train` beside `car` and `bus` is a
class if it holds images directly, and a part if it holds a folder for each class.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from dse.data.files import has_images, holds_images, listed, subfolders
from dse.data.summary import printable
from dse.errors import DataError

Kind = Literal["train", "validation", "test"]
Folders = Mapping[str, Path]  # the folder of each label

_WORDS: dict[str, Kind] = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_ENDINGS = ("dataset", "data", "set", "images", "image", "imgs", "split", "part")
_DEEPEST = 3  # maximum number of nested folders that hold nothing but one folder
_ALIKE = 0.5  # folders that share this part of their subfolders' names look like parts


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The folders of a data set.

    Attributes:
        top: folder that holds the parts or classes.
        train: folders of the training images, by label.
        validation: folders of the validation images, by label; None if there is no such part.
        train_origin: location of the training part, as text.
        validation_origin: location of the validation part, as text.
        loose: folders that may hold images beside the class folders.
        notes: one line per decision.
    """

    top: Path
    train: Folders
    validation: Folders | None = None
    train_origin: str = "class folders"
    validation_origin: str = ""
    loose: tuple[Path, ...] = ()
    notes: tuple[str, ...] = field(default=())


def kind_of(name: str) -> Kind | None:
    """Return which part a folder's name stands for; None if none, or several.

    Spellings such as "Training", "test-set", "seg_train", "valData" and "train2017" are recognised.
    """
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    kinds = {kind for word in words if (kind := _kind_of_word(word)) is not None}
    if kinds == {"train", "validation"}:  # "train_val" is usually all data to train on
        return "train"
    return next(iter(kinds)) if len(kinds) == 1 else None


def _kind_of_word(word: str) -> Kind | None:
    for ending in _ENDINGS:
        if word not in _WORDS:
            word = word.removesuffix(ending)
    return _WORDS.get(word)


def label_of(folder: Path) -> str:
    """Return the name of a class from its folder.

    Raises:
        DataError: if the name is not UTF-8, so that no file could store it.
    """
    try:
        folder.name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"data.root: the name of the folder {printable(str(folder))} is not UTF-8: rename it"
        ) from error
    return unicodedata.normalize("NFC", folder.name)


def find_layout(root: Path, *, labels: Sequence[str] | None = None) -> Layout:
    """Find a data set's parts and classes below a folder.

    Args:
        root: the folder. It, or the only folder in it with images, holds a folder for each class;
            or a training part and optionally validation and test parts, each with such folders; or
            a folder for each class, each with such parts.
        labels: labels to use; if they name folders of the root, these are the classes. None uses
            all.

    Raises:
        DataError: if there are no images, or it is unclear which folders are parts or classes.
    """
    top = root
    for _ in range(_DEEPEST):
        below = _only_folder(top, labels)
        if below is None or kind_of(below.name) == "train":  # which is a part, found below
            break
        top = below
    layout = _layout_at(top, labels)
    if top != root:
        layout = replace(layout, notes=(f"the data lie in {top}", *layout.notes))
    return layout


def _only_folder(folder: Path, labels: Sequence[str] | None) -> Path | None:
    """Return the only subfolder with images if it holds classes or parts itself; else None."""
    below = subfolders(folder)
    if labels and {unicodedata.normalize("NFC", one.name) for one in below} & set(labels):
        return None
    holding = [one for one in below if holds_images(one)]
    if len(holding) != 1 or has_images(folder):
        return None
    inner = _with_images(holding[0])
    several = len(inner) > 1 or any(kind_of(one.name) for one in inner)
    return holding[0] if several or _only_folder(holding[0], labels) else None


def _layout_at(top: Path, labels: Sequence[str] | None) -> Layout:
    below = subfolders(top)
    named = {unicodedata.normalize("NFC", one.name) for one in below}
    if labels and set(labels) <= named:
        return _classes(top, labels)
    inner = {one: _with_images(one) for one in below}
    kinds = {one: kind_of(one.name) for one in below}
    if any(kinds[one] == "train" and inner[one] for one in below):
        return _parts(top, kinds, inner, labels)
    holding = [one for one in below if holds_images(one)]
    if _parts_in_classes(holding, inner):
        return _inverted(top, holding, inner)
    _check_parts(top, holding, kinds, inner)
    return _classes(top, labels)


def _with_images(folder: Path) -> list[Path]:
    return [one for one in subfolders(folder) if holds_images(one)]


def _classes(top: Path, labels: Sequence[str] | None) -> Layout:
    folders = _class_folders(top, labels)
    return Layout(top=top, train=folders, loose=(top,))


def _class_folders(part: Path, labels: Sequence[str] | None) -> dict[str, Path]:
    """Return the folder of each label of a part, restricted to the requested labels."""
    wanted = None if labels is None else set(labels)
    found: dict[str, Path] = {}
    for folder in subfolders(part):
        if wanted is not None and unicodedata.normalize("NFC", folder.name) not in wanted:
            continue
        label = label_of(folder)
        if label in found:
            raise DataError(
                f"data.root: {part} has two folders that read {label!r}, in different Unicode "
                "forms: rename one"
            )
        found[label] = folder
    return found


def _parts(
    top: Path,
    kinds: Mapping[Path, Kind | None],
    inner: Mapping[Path, list[Path]],
    labels: Sequence[str] | None,
) -> Layout:
    """Build the layout of parts that each hold a folder for each class."""
    notes = []
    train = _one_part(top, "train", [one for one in kinds if kinds[one] == "train" and inner[one]])
    validations = [one for one in kinds if kinds[one] == "validation"]
    tests = [one for one in kinds if kinds[one] == "test"]
    for one in validations:
        if not inner[one] and holds_images(one):
            raise DataError(
                f"data.root: {one} holds images but no class folders: put the images of each "
                f"class into a folder of its own, as in {train}"
            )
    chosen = [one for one in validations if inner[one]] or [one for one in tests if inner[one]]
    validation = _one_part(top, "validation", chosen) if chosen else None
    for one in tests:
        if one != validation and holds_images(one):
            reason = (
                f"{validation.name}/ is the validation part"
                if validation
                else "it has no class folders, so its labels are unknown"
            )
            notes.append(f"{one.name}/ is not used: {reason}")
    classes = {one.name for one in inner[train]}
    for one in kinds:
        if one in (train, validation, *tests) or not holds_images(one):
            continue
        if one.name in classes:
            raise DataError(
                f"data.root: {top} has the part {train.name}/ and the class folder {one.name}/ "
                f"side by side: move {one.name}/ into a part, or elsewhere"
            )
        notes.append(f"{one.name}/ is not used: its name stands for no part (train, val or test)")
    train, validation = _entered(train, labels), validation and _entered(validation, labels)
    return Layout(
        top=top,
        train=_class_folders(train, labels),
        validation=None if validation is None else _class_folders(validation, labels),
        train_origin=f"{train.relative_to(top)}/",
        validation_origin="" if validation is None else f"{validation.relative_to(top)}/",
        loose=(top, train, *(() if validation is None else (validation,))),
        notes=tuple(notes),
    )


def _entered(part: Path, labels: Sequence[str] | None) -> Path:
    """Return a part's folder of classes, which may be nested, as in seg_train/seg_train."""
    inside = _only_folder(part, labels)
    return part if inside is None else inside


def _one_part(top: Path, what: str, found: list[Path]) -> Path:
    if len(found) > 1:
        names = " and ".join(f"{one.name}/" for one in found)
        raise DataError(
            f"data.root: {top} has {names}, which all look like the {what} part: "
            "rename or move all but one"
        )
    return found[0]


def _parts_in_classes(holding: list[Path], inner: Mapping[Path, list[Path]]) -> bool:
    """Return whether each folder is a class with parts: cat/train, cat/test, dog/train, ..."""
    return len(holding) > 1 and all(
        inner[one]
        and not kind_of(one.name)
        and not has_images(one)
        and all(kind_of(part.name) for part in inner[one])
        and any(kind_of(part.name) == "train" for part in inner[one])
        for one in holding
    )


def _inverted(top: Path, holding: list[Path], inner: Mapping[Path, list[Path]]) -> Layout:
    """Build the layout of classes that each hold their own parts."""

    def part(kind: Kind) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for one in holding:
            folders = [each for each in inner[one] if kind_of(each.name) == kind]
            if folders:
                found[label_of(one)] = _one_part(one, kind, folders)
        return found

    validation, test = part("validation"), part("test")
    notes = ["test/ in each class is not used: there is a validation part"]
    return Layout(
        top=top,
        train=part("train"),
        validation=validation or test or None,
        train_origin="the training folders of the classes",
        validation_origin=f"the {'validation' if validation else 'test'} folders of the classes",
        loose=(top, *holding),
        notes=tuple(notes) if validation and test else (),
    )


def _check_parts(
    top: Path,
    holding: list[Path],
    kinds: Mapping[Path, Kind | None],
    inner: Mapping[Path, list[Path]],
) -> None:
    """Refuse folders that look like parts if it is unclear which one to train on."""
    if len(holding) < 2:  # noqa: PLR2004  # nothing to compare
        return
    names = ", ".join(f"{one.name}/" for one in holding[:4])
    sets = [{each.name.casefold() for each in inner[one]} for one in holding]
    shared, largest = set.intersection(*sets), max(map(len, sets))
    if len(shared) > 1 and len(shared) >= _ALIKE * largest:
        example = ", ".join(sorted(shared)[:3])
        raise DataError(
            f"data.root: {names} in {top} hold the same subfolders ({example}), so they look like "
            "parts and not like classes: name the one to train on train/ and the other val/ or "
            "test/; if they are the classes, list them in data.labels"
        )
    found = {kinds[one] for one in holding}
    if "train" in found and len(found) > 1 and None not in found:
        raise DataError(
            f"data.root: {names} in {top} hold images but no class folders: put the images of each "
            "class into a folder of its own inside; if they are the classes, list them in "
            "data.labels"
        )


def loose_files(layout: Layout) -> list[Path]:
    """List the files that lie beside the class folders."""
    return [one for folder in layout.loose for one in listed(folder) if not one.is_dir()]
