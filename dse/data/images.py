"""Images in files and in memory, read as images of bytes of one shape."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dse.data.decode import opened, shaped
from dse.data.pixels import Bytes, Scale
from dse.data.reading import Reading
from dse.data.survey import survey
from dse.errors import DataError


@dataclass(frozen=True)
class FileImages:
    """Images in files, decoded when they are read, several at a time.

    Attributes:
        paths: the files.
        reading: shape of the images after reading.
        scale: scale of values larger than bytes; found from these files on the first read if None.
    """

    paths: Sequence[Path]
    reading: Reading
    scale: Scale | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def sizes(self) -> list[int]:
        """Return the size of each file in bytes.

        Raises:
            DataError: if a file is missing; the message names it.
        """
        try:
            return [path.stat().st_size for path in self.paths]
        except OSError as error:
            raise DataError(f"{error.filename}: can't be read: {error.strerror}") from error

    @cached_property
    def _scale(self) -> Scale:
        return self.scale or survey(self.paths, everything=False).scale

    def fetch(self, positions: Tensor) -> Tensor:
        """Decode images: (n, channels, height, width) uint8.

        Raises:
            UnreadableImageError: if a file can't be decoded; the message names it.
            DataError: if the scale of its values can't be determined.
        """
        scale = self._scale

        def decoded(position: int) -> Bytes:
            with opened(self.paths[position]) as image:
                return shaped(image, self.reading, scale=scale)

        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            return stacked(list(pool.map(decoded, positions.tolist())), self.reading)


@dataclass(frozen=True)
class ScaledImages:
    """Small grey images in memory that are resized when they are read.

    Attributes:
        small: (n, 1, height, width) float32, from 0 to 1.
        reading: shape of the images after reading.
    """

    small: Tensor
    reading: Reading

    def __len__(self) -> int:
        return len(self.small)

    def fetch(self, positions: Tensor) -> Tensor:
        """Read images, resized bilinearly: (n, channels, height, width) uint8."""
        scaled = functional.interpolate(
            self.small[positions],
            size=(self.reading.height, self.reading.width),
            mode="bilinear",
            align_corners=False,
        )
        return (
            (scaled * 255)
            .round()
            .to(torch.uint8)
            .expand(-1, self.reading.channels, -1, -1)
            .contiguous()
        )


def stacked(images: list[Bytes], reading: Reading) -> Tensor:
    """Stack images of (channels, height, width) into one tensor."""
    if not images:
        return torch.empty((0, *reading.shape), dtype=torch.uint8)
    return torch.from_numpy(np.stack(images))
