"""Opens the data that a study names, without reading images."""

from functools import lru_cache
from pathlib import Path
from typing import Literal, overload

from dse.config import DataConfig
from dse.data.datasets import called_factory, factory_source, pool_of
from dse.data.folder import image_folder
from dse.data.reading import Reading
from dse.data.sources import Source, digits
from dse.data.tensors import DatasetTensors
from dse.data.torchvision_sets import default_root, torchvision_source
from dse.inputs import InputSpec


@overload
def open_source(config: DataConfig, *, labels: tuple[str, ...] | None) -> Source: ...


@overload
def open_source(
    config: DataConfig, *, labels: tuple[str, ...] | None, download: Literal[False]
) -> Source | None: ...


def open_source(
    config: DataConfig, *, labels: tuple[str, ...] | None, download: bool = True
) -> Source | None:
    """Open the data; return None if they are missing and may not be downloaded."""
    if config.name == "digits":
        return digits(Reading.of(config))
    if config.name == "folder":
        return image_folder(config.root or Path(), reading=Reading.of(config), labels=labels)
    if config.torchvision_name is None:
        return factory_source(
            config.name, config.root, reading=Reading.of(config), wanted=config.input
        )
    return torchvision_source(
        config.torchvision_name,
        config.root or default_root(),
        reading=Reading.of(config),
        download=download,
    )


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


def place_of(config: DataConfig) -> str:
    """Return the folder of the data as text; empty for data inside a package."""
    return str(config.root or (default_root() if config.torchvision_name else ""))
