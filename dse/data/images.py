"""Images in files and in memory, read as square bytes of three colours."""

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

from dse.data.decode import opened, square
from dse.data.pixels import Bytes, Scale
from dse.data.survey import survey
from dse.errors import DataError


@dataclass(frozen=True)
class FileImages:
    """Images in files, decoded when read, several at a time.

    Attributes:
        paths: The files.
        image_size: Side of what is read, in pixels.
        scale: Of values beyond bytes; None finds it from these files when the first is read.
    """

    paths: Sequence[Path]
    image_size: int
    scale: Scale | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def sizes(self) -> list[int]:
        """Bytes of each file.

        Raises:
            DataError: A file is gone; it is named.
        """
        try:
            return [path.stat().st_size for path in self.paths]
        except OSError as error:
            raise DataError(f"{error.filename}: can't be read: {error.strerror}") from error

    @cached_property
    def _scale(self) -> Scale:
        return self.scale or survey(self.paths, everything=False).scale

    def fetch(self, positions: Tensor) -> Tensor:
        """Decode images: (n, 3, size, size) uint8.

        Raises:
            UnreadableImageError: A file is no image or is broken; it is named.
            DataError: Its values are on no scale that can be told.
        """
        scale = self._scale

        def decoded(position: int) -> Bytes:
            with opened(self.paths[position]) as image:
                return square(image, self.image_size, scale=scale)

        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            return stacked(list(pool.map(decoded, positions.tolist())), self.image_size)


@dataclass(frozen=True)
class ScaledImages:
    """Small grey images in memory that are scaled when read.

    Attributes:
        small: (n, 1, height, width) float32, 0 to 1.
        image_size: Side of what is read, in pixels.
    """

    small: Tensor
    image_size: int

    def __len__(self) -> int:
        return len(self.small)

    def fetch(self, positions: Tensor) -> Tensor:
        """Read images, scaled bilinearly, the one colour thrice: (n, 3, size, size) uint8."""
        scaled = functional.interpolate(
            self.small[positions],
            size=(self.image_size, self.image_size),
            mode="bilinear",
            align_corners=False,
        )
        return (scaled * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def stacked(images: list[Bytes], size: int) -> Tensor:
    """Put images of (3, size, size) into one tensor."""
    if not images:
        return torch.empty((0, 3, size, size), dtype=torch.uint8)
    return torch.from_numpy(np.stack(images))
