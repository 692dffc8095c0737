"""Data sets of Hugging Face's `datasets`, saved on disk by `save_to_disk`.

Nothing is downloaded, and no code that comes with a data set is run.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from dse.data.columns import Columns, find_columns, find_inputs, kind_of_feature
from dse.data.layout import Kind, kind_of
from dse.data.targets import Form
from dse.errors import DataError
from dse.user_code import USER_ERRORS, described


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How rows become items.

    Attributes:
        columns: the study's `data.columns`: names of columns by "input" and "target".
        tokenizer: folder of the tokenizer of text; None if there is none.
        tokens: number of tokens that each text is cut or filled up to.
    """

    columns: Mapping[str, Sequence[str]]
    tokenizer: Path | None = None
    tokens: int = 128


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The parts of a saved data set that are used.

    Attributes:
        train: name and rows of the training part.
        validation: the same of the validation or test part; None if there is none.
        unused: names of further parts.
    """

    train: tuple[str, Any]
    validation: tuple[str, Any] | None = None
    unused: tuple[str, ...] = ()


class SavedItems(Dataset[tuple[Any, Any]]):
    """Rows of a saved data set as items of (input, target).

    Attributes:
        rows: the rows, with the columns that are used.
        columns: those columns.
        form: what the targets are.
        reader: how rows become items.
    """

    def __init__(self, rows: Any, columns: Columns, *, form: Form, reader: Reader) -> None:
        used = list(dict.fromkeys((*columns.inputs, *columns.target)))
        self.rows = rows.with_format(None).select_columns(used)
        self.columns, self.form, self.reader = columns, form, reader

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> tuple[Any, Any]:
        row = self.rows[position]
        return self._input(row), self._target([row[name] for name in self.columns.target])

    def input(self, position: int) -> Any:
        """Return the input of a row."""
        return self._input(self.rows[position])

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the labels, if the columns have them."""
        features, target = self.rows.features, self.columns.target
        if len(target) > 1:
            return target
        feature = features[target[0]]
        named = feature if self.form == "class" else getattr(feature, "feature", None)
        names = getattr(named, "names", None)
        if names is None and self.form == "values" and kind_of_feature(feature) == "number":
            return target
        return None if names is None else tuple(map(str, names))

    @property
    def targets(self) -> list[Any] | None:
        """Targets of all rows, read without the inputs; None for masks."""
        if self.form == "mask":
            return None
        columns = [list(self.rows[name]) for name in self.columns.target]
        return [self._target(list(one)) for one in zip(*columns, strict=True)]

    def _target(self, values: list[Any]) -> Any:
        if len(values) > 1:
            return values
        (value,) = values
        if self.form == "labels" and self.classes is not None and value is not None:
            hot = np.zeros(len(self.classes), dtype=np.int64)
            hot[value] = 1
            return hot
        if self.form == "mask" and isinstance(value, list):
            return np.asarray(value)
        return value

    def _input(self, row: Mapping[str, Any]) -> Any:
        names = self.columns.inputs
        if self.columns.kind == "text":
            return self._tokenized([row[name] for name in names])
        if self.columns.kind == "array":
            found = {name: np.asarray(row[name]) for name in names}
            return found if len(names) > 1 else found[names[0]]
        return row[names[0]]

    def _tokenized(self, texts: list[Any]) -> dict[str, Any]:
        if not all(isinstance(one, str) for one in texts):
            raise TypeError("its text is missing: give one, or leave the row out")
        made = self._tokenizer(
            *texts, padding="max_length", truncation=True, max_length=self.reader.tokens
        )
        return {name: np.asarray(values, dtype=np.int64) for name, values in made.items()}

    @cached_property
    def _tokenizer(self) -> Any:
        return _tokenizer(self.reader.tokenizer, self.columns.inputs)


def saved_splits(root: Path) -> Splits:
    """Open a data set that `save_to_disk` wrote, without reading rows.

    Raises:
        DataError: if the package `datasets` isn't installed, the folder holds no data set, or none
            of its splits is to train on.
    """
    datasets = _imported("datasets", extra="datasets", needs="data.name = 'hf'")
    try:
        with _quiet(datasets):
            held = datasets.load_from_disk(str(root))
    except FileNotFoundError as error:
        raise DataError(
            f"data.root: {root} holds no data set that save_to_disk wrote: name such a folder; a "
            'folder of images is data.name = "folder"'
        ) from error
    except USER_ERRORS as error:  # its files may be damaged in any way
        raise DataError(f"data.root: {root} can't be read: {described(error)}") from error
    if not isinstance(held, Mapping):
        return Splits(train=("train", held))
    kinds: dict[Kind, list[str]] = {"train": [], "validation": [], "test": []}
    for name in held:
        if (kind := kind_of(str(name))) is not None:
            kinds[kind].append(name)
    listed = ", ".join(map(repr, held)) or "none"
    if not kinds["train"]:
        raise DataError(
            f"data.root: {root} has no split to train on (it has {listed}): save it with one that "
            'is called "train"'
        )
    chosen = {kind: found for kind, found in kinds.items() if found}
    for kind, found in chosen.items():
        if len(found) > 1:
            raise DataError(
                f"data.root: {root} has the splits {', '.join(map(repr, found))}, which all look "
                f"like the {kind} part: save it with one of them"
            )
    train = kinds["train"][0]
    last = next(iter((*kinds["validation"], *kinds["test"])), None)
    return Splits(
        train=(train, held[train]),
        validation=None if last is None else (last, held[last]),
        unused=tuple(str(name) for name in held if name not in (train, last)),
    )


def saved_items(
    rows: Any, *, form: Form, reader: Reader, place: str, like: SavedItems | None = None
) -> SavedItems:
    """Return the rows of a part as items.

    Args:
        rows: the rows.
        form: what the targets are.
        reader: how rows become items.
        place: of the data, for messages.
        like: items of the training part, whose columns are read; None to find them.

    Raises:
        DataError: if a column is missing or can't be told from others, or text has no tokenizer.
    """
    columns = like.columns if like is not None else None
    if columns is not None:
        for name in (*columns.inputs, *columns.target):
            if name not in rows.features:
                raise DataError(
                    f"{place} has no column {name!r}, which is read of the training split: save "
                    "both with the same columns"
                )
    else:
        columns = find_columns(rows.features, reader.columns, form=form, place=place)
    if columns.kind == "text":
        _tokenizer(reader.tokenizer, columns.inputs)
    return SavedItems(rows, columns, form=form, reader=reader)


def first_input(rows: Any, *, reader: Reader, place: str) -> Any:
    """Return the input of the first row, whatever the task; None of no rows.

    Raises:
        DataError: see `saved_items`.
    """
    inputs, kind = find_inputs(rows.features, reader.columns, place=place)
    if not len(rows):
        return None
    columns = Columns(inputs=inputs, target=(), kind=kind)
    return SavedItems(rows, columns, form="mask", reader=reader).input(0)


@lru_cache(maxsize=4)
def _tokenizer(folder: Path | None, columns: tuple[str, ...]) -> Any:
    """Return the tokenizer of a folder.

    Raises:
        DataError: if there is none, or it can't fill texts up.
    """
    names = ", ".join(columns)
    if folder is None:
        raise DataError(
            f"data.tokenizer is missing: the column {names} holds text; name the folder of a "
            "tokenizer, usually that of the network"
        )
    transformers = _imported("transformers", extra="transformers", needs="data.tokenizer")
    if not folder.is_dir():
        raise DataError(
            f"data.tokenizer: {folder} is no folder: save one there with the tokenizer's "
            "save_pretrained"
        )
    try:
        found = transformers.AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        )
    except USER_ERRORS as error:  # its files may hold anything
        reason = " ".join(described(error).split())
        raise DataError(f"data.tokenizer: {folder} can't be read: {reason}") from error
    if found.pad_token is None:
        found.pad_token = found.eos_token
    if found.pad_token is None:
        raise DataError(
            f"data.tokenizer: {folder} has no token to fill texts up with: give it a pad_token"
        )
    return found


def _imported(module: str, *, extra: str, needs: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"{needs} needs the package {module} ({error}): pip install 'dse[{extra}]'"
        ) from error


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Keep the package from drawing progress bars."""
    drawn = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if drawn:
            datasets.enable_progress_bars()
