"""Opens the data that a study names, without reading images."""

from pathlib import Path
from typing import Literal, overload

from dse.config import DataConfig
from dse.data.datasets import factory_source
from dse.data.folder import image_folder
from dse.data.sources import Source, digits
from dse.data.torchvision_sets import default_root, torchvision_source


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
        return digits(config.image_size)
    if config.name == "folder":
        return image_folder(config.root or Path(), image_size=config.image_size, labels=labels)
    if config.torchvision_name is None:
        return factory_source(config.name, config.root, image_size=config.image_size)
    return torchvision_source(
        config.torchvision_name,
        config.root or default_root(),
        image_size=config.image_size,
        download=download,
    )


def place_of(config: DataConfig) -> str:
    """Return the folder of the data as text; empty for data inside a package."""
    return str(config.root or (default_root() if config.torchvision_name else ""))
