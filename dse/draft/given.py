"""The data that a study is drafted for: which task they are for, and how large images are."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from dse.config import DataConfig, TaskConfig
from dse.config.load import network_tokenizer
from dse.data import inputs_of
from dse.data.decode import opened
from dse.data.images import FileImages
from dse.data.items import DatasetImages, spread
from dse.data.masks import holds_masks
from dse.data.opening import open_source
from dse.data.reading import Reading
from dse.draft.text import SELECTION_SHARE, VALIDATION_SHARE
from dse.errors import ConfigError, DataError, UnreadableImageError
from dse.inputs import InputSpec


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a user names.

    Attributes:
        images: folder of images; None where `dataset` is given.
        table: CSV file of labels or numbers beside it.
        dataset: folder of a saved data set of Hugging Face's.
        task: the task; None to find it.
        network: the network; None for the usual one.
        folder: folder of the study, in which a network's folder is searched first.
    """

    images: Path | None = None
    table: Path | None = None
    dataset: Path | None = None
    task: str | None = None
    network: str | None = None
    folder: Path = Path()

    @property
    def root(self) -> Path:
        """The folder of the data."""
        return self.images or self.dataset or Path()

    @cached_property
    def kind(self) -> str:
        """The task: the given one, or what the data show.

        A table of zeros and ones has labels, any other numbers; a folder with images/ and masks/ is
        for a segmentation, and all else for a classification.

        Raises:
            DataError: if the data can't be read.
        """
        if self.task is not None:
            return self.task
        if self.table is not None:
            source = open_source(
                self._config(self.table), labels=None, task=TaskConfig(kind="regression")
            )
            values = source.train.values
            labels = values is not None and bool(np.isin(values, (0, 1)).all())
            return "multi-label" if labels else "regression"
        if self.images is not None and holds_masks(self.images):
            return "segmentation"
        return "classification"

    @cached_property
    def config(self) -> DataConfig:
        """How the data are opened.

        Raises:
            ConfigError: if task and data don't go together.
        """
        tabled = self.kind in ("multi-label", "regression")
        if self.images is not None and tabled != (self.table is not None):
            if tabled:
                raise ConfigError(
                    f"--task {self.kind} needs --table FILE: a CSV file of the images' names and "
                    "targets"
                )
            raise ConfigError(f"--table has no use for --task {self.kind}: leave one of them out")
        return self._config(self.table)

    def _config(self, table: Path | None) -> DataConfig:
        return DataConfig(
            name="folder" if self.images is not None else "hf",
            root=self.root.absolute(),
            table=None if table is None else table.absolute(),
            tokenizer=None if self.images is not None else self._tokenizer,
            validation_share=VALIDATION_SHARE,
            selection_share=SELECTION_SHARE,
        )

    @property
    def _tokenizer(self) -> Path | None:
        found = (network_tokenizer(self.network, start) for start in (self.folder, Path.cwd()))
        return next(filter(None, found), None)

    @cached_property
    def samples(self) -> InputSpec | None:
        """Shape of samples that are no images; None of images.

        Raises:
            DataError: if the first one can't be read.
        """
        inputs = inputs_of(self.config)
        return None if inputs == InputSpec(shape=Reading.of(self.config).shape) else inputs

    def short_sides(self, *, most: int) -> list[int]:
        """Return the shorter sides in pixels of some training images; unreadable ones are left out.

        Args:
            most: maximum number of images, which are spread over all.

        Raises:
            DataError: if none can be read.
        """
        source = open_source(self.config, labels=None, task=TaskConfig(kind=self.kind))
        images, sides = source.train.images, []
        for position in spread(len(images), most):
            try:
                if isinstance(images, FileImages):
                    with opened(images.paths[position]) as image:
                        sides.append(min(image.size))
                elif isinstance(images, DatasetImages):
                    held = images.item(position)[0]
                    sides += [min(held.size)] if isinstance(held, Image.Image) else []
            except UnreadableImageError:
                continue
        if not sides:
            raise DataError(
                f"none of the images in {self.root} can be read: name a folder of images"
            )
        return sides
