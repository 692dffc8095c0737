"""Opens the data that a study names, without reading images."""

import math
from functools import lru_cache
from pathlib import Path
from typing import Literal, overload

import torch

from dse.config import DataConfig, TaskConfig
from dse.data.datasets import called_factory, factory_source, pool_of
from dse.data.folder import image_folder
from dse.data.masks import mask_folder
from dse.data.parts import Images
from dse.data.reading import Reading
from dse.data.sources import Source, digits
from dse.data.table import image_table
from dse.data.targets import Form, TargetReading
from dse.data.tensors import DatasetTensors
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
    if config.table is not None:
        return image_table(
            config.root or Path(),
            config.table,
            reading=Reading.of(config),
            form=form,
            labels=labels,
        )
    if config.name == "folder" and form == "mask":
        return mask_folder(
            config.root or Path(), reading=Reading.of(config), ignore=task.ignore, labels=labels
        )
    if config.name == "folder":
        return image_folder(config.root or Path(), reading=Reading.of(config), labels=labels)
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


def form_of(task: TaskConfig) -> Form:
    """Return the form of a task's targets in its data."""
    form = TASKS[task.kind].form
    return "labels" if task.kind == "multi-label" else form


def inputs_of(config: DataConfig) -> InputSpec:
    """Return shape and type of the samples of a study's data.

    A factory is called, and its first item read; anything else is known from the study.

    Raises:
        DataError: if the factory or its first item can't be used.
    """
    if not config.is_factory:
        return InputSpec(shape=Reading.of(config).shape)
    return _factory_inputs(config.name, config.root, Reading.of(config), config.input)


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
