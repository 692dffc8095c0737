"""Opens the data that a study names, without reading images."""

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, overload

import torch

from dse.config import DataConfig, TaskConfig
from dse.data.datasets import called_factory, dataset_source, factory_source, pool_of
from dse.data.folder import image_folder
from dse.data.masks import mask_folder
from dse.data.parts import Images
from dse.data.reading import Reading
from dse.data.saved_sets import Reader, SavedItems, first_input, saved_items, saved_splits
from dse.data.sources import Source, digits
from dse.data.table import image_table
from dse.data.targets import Form, TargetReading
from dse.data.tensors import DatasetTensors, is_image
from dse.data.torchvision_sets import default_root, torchvision_source
from dse.errors import DataError
from dse.inputs import InputSpec
from dse.tasks.kinds import TASKS

_CLASSIFICATION = TaskConfig()


@overload
def open_source(
    config: DataConfig, *, labels: tuple[str, ...] | None, task: TaskConfig = ...
) -> Source: ...


@overload
def open_source(
    config: DataConfig,
    *,
    labels: tuple[str, ...] | None,
    task: TaskConfig = ...,
    download: Literal[False],
) -> Source | None: ...


def open_source(
    config: DataConfig,
    *,
    labels: tuple[str, ...] | None,
    task: TaskConfig = _CLASSIFICATION,
    download: bool = True,
) -> Source | None:
    """Open the data; return None if they are missing and may not be downloaded.

    Raises:
        DataError: if they are damaged, or have no targets of the task.
    """
    form = form_of(task)
    if config.name == "digits":
        if form != "class":
            raise DataError(f'data.name = "digits" has classes alone, not a {task.kind} to learn')
        return digits(Reading.of(config))
    if config.name == "folder":
        return _folder_source(config, form=form, ignore=task.ignore, labels=labels)
    if config.name == "hf":
        return _saved_source(config, form=form, ignore=task.ignore, labels=labels)
    if config.torchvision_name is None:
        return factory_source(
            config.name,
            config.root,
            reading=Reading.of(config),
            wanted=config.input,
            target=TargetReading(form=form, ignore=task.ignore),
            labels=labels,
        )
    if form != "class":
        raise DataError(
            f"data {config.name!r} gives classes, and the task is {task.kind}: use "
            'data.name = "folder", or a factory'
        )
    return torchvision_source(
        config.torchvision_name,
        config.root or default_root(),
        reading=Reading.of(config),
        download=download,
    )


def _folder_source(
    config: DataConfig, *, form: Form, ignore: int, labels: tuple[str, ...] | None
) -> Source:
    """Open a folder of images: with a table, with masks, or with a folder for each label."""
    root, reading = config.root or Path(), Reading.of(config)
    if config.table is not None:
        return image_table(root, config.table, reading=reading, form=form, labels=labels)
    if form == "mask":
        return mask_folder(root, reading=reading, ignore=ignore, labels=labels)
    return image_folder(root, reading=reading, labels=labels)


def _saved_source(
    config: DataConfig, *, form: Form, ignore: int, labels: tuple[str, ...] | None
) -> Source:
    """Open a saved data set of Hugging Face's."""
    root, reader = config.root or Path(), _reader(config)
    splits = saved_splits(root)

    def items(split: tuple[str, Any], like: SavedItems | None = None) -> SavedItems:
        place = f"data.root: {root}, split {split[0]!r}"
        return saved_items(split[1], form=form, reader=reader, place=place, like=like)

    train = items(splits.train)
    source = dataset_source(
        train,
        None if splits.validation is None else items(splits.validation, train),
        name=str(root),
        reading=Reading.of(config),
        wanted=config.input,
        target=TargetReading(form=form, ignore=ignore),
        labels=labels,
    )
    read = f"read: {', '.join(train.columns.inputs)}; target: {', '.join(train.columns.target)}"
    unused = [f"split {one!r} is not used" for one in splits.unused]
    return replace(
        source,
        train_origin=f"split {splits.train[0]!r}",
        validation_origin=f"split {splits.validation[0]!r}" if splits.validation else "",
        notes=(*source.notes, f"columns that are {read}", *unused),
    )


def _reader(config: DataConfig) -> Reader:
    return Reader(columns=config.columns or {}, tokenizer=config.tokenizer, tokens=config.tokens)


def form_of(task: TaskConfig) -> Form:
    """Return the form of a task's targets in its data."""
    form = TASKS[task.kind].form
    return "labels" if task.kind == "multi-label" else form


def inputs_of(config: DataConfig) -> InputSpec:
    """Return shape and type of the samples of a study's data.

    A factory is called, and its first item read, as is that of a saved data set; anything else is
    known from the study.

    Raises:
        DataError: if the factory or its first item can't be used.
    """
    if config.name == "hf":
        return _saved_inputs(config)
    if not config.is_factory:
        return InputSpec(shape=Reading.of(config).shape)
    return _factory_inputs(config.name, config.root, Reading.of(config), config.input)


def _saved_inputs(config: DataConfig) -> InputSpec:
    root, reading = config.root or Path(), Reading.of(config)
    split, rows = saved_splits(root).train
    place = f"data.root: {root}, split {split!r}"
    first = first_input(rows, reader=_reader(config), place=place)
    if first is None or is_image(first, config.input):
        return InputSpec(shape=reading.shape)
    alone = DatasetTensors([(first, 0)], str(root), reading, wanted=config.input)  # type: ignore[arg-type]  # a list is indexed
    return alone.inputs


@lru_cache(maxsize=8)
def _factory_inputs(
    name: str, root: Path | None, reading: Reading, wanted: tuple[int, ...] | None
) -> InputSpec:
    train = called_factory(name, root)[0]
    pool = pool_of(train, name, reading, wanted)
    return pool.inputs if isinstance(pool, DatasetTensors) else InputSpec(shape=reading.shape)


def inputs_in(source: Source, config: DataConfig) -> InputSpec:
    """Return shape and type of the samples of opened data."""
    images = source.train.images
    if isinstance(images, DatasetTensors):
        return images.inputs
    return InputSpec(shape=Reading.of(config).shape)


def stored_dtype(images: Images, inputs: InputSpec) -> torch.dtype:
    """Return the type of samples as they are held: bytes for images, or their own."""
    if isinstance(images, DatasetTensors) and inputs.kind == "float32":
        return images.fetch(torch.zeros(1, dtype=torch.int64)).dtype
    return inputs.dtype if isinstance(images, DatasetTensors) else torch.uint8


def sample_bytes(images: Images, inputs: InputSpec) -> int:
    """Return the bytes that one sample takes in memory."""
    return math.prod(inputs.shape) * stored_dtype(images, inputs).itemsize


def place_of(config: DataConfig) -> str:
    """Return the folder of the data as text; empty for data inside a package."""
    return str(config.root or (default_root() if config.torchvision_name else ""))
