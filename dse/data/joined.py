"""Parts joined into one, and digests of parts."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dse.data.parts import LazyImages, Part
from dse.digests import parts_digest


@dataclass(frozen=True, eq=False)
class ChainedImages:
    """Images of one part followed by those of another; both may vary.

    Attributes:
        first: in memory, (n, 3, size, size) uint8, or read lazily.
        second: likewise.
    """

    first: Tensor | LazyImages
    second: Tensor | LazyImages

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    @property
    def varies(self) -> bool:
        """Whether the images of either part vary."""
        return any(isinstance(one, LazyImages) and one.varies for one in (self.first, self.second))

    def fetch(self, positions: Tensor) -> Tensor:
        """Read images: (n, 3, size, size) uint8."""
        return self._read(positions, seed=None)

    def varied(self, positions: Tensor, *, seed: int) -> Tensor:
        """Read images, with random transforms where they vary: (n, 3, size, size) uint8."""
        return self._read(positions, seed=seed)

    def _read(self, positions: Tensor, *, seed: int | None) -> Tensor:
        late = positions >= len(self.first)
        halves = (
            _read_of(self.first, positions[~late], seed=seed),
            _read_of(self.second, positions[late] - len(self.first), seed=seed),
        )
        read = halves[0].new_empty((len(positions), *halves[0].shape[1:]))
        read[~late], read[late] = halves
        return read


def _read_of(images: Tensor | LazyImages, positions: Tensor, *, seed: int | None) -> Tensor:
    if isinstance(images, Tensor):
        return images[positions]
    return images.fetch(positions) if seed is None else images.varied(positions, seed=seed)


def joined(first: Part, second: Part) -> Part:
    """Return one part with the images of two."""
    images: Tensor | LazyImages
    if isinstance(first.images, Tensor) and isinstance(second.images, Tensor):
        images = torch.cat([first.images, second.images])
    elif (
        isinstance(first.images, LazyImages)
        and isinstance(second.images, LazyImages)
        and first.images.images is second.images.images
    ):
        positions = torch.cat([first.images.positions, second.images.positions])
        images = LazyImages(first.images.images, positions)
    else:
        both = ChainedImages(first.images, second.images)
        images = LazyImages(both, torch.arange(len(both)))
    return replace(first, images=images, labels=torch.cat([first.labels, second.labels]))


def fingerprint(part: Part) -> str:
    """Return a digest of a part's labels and of its images, or of their positions if on disk."""
    tensors = (part.labels, *_held(part.images))
    return parts_digest(held.contiguous().numpy().tobytes() for held in tensors)


def _held(images: Tensor | LazyImages) -> tuple[Tensor, ...]:
    """Return tensors that identify a part's images: their pixels, or their positions if on disk."""
    if isinstance(images, Tensor):
        return (images,)
    if isinstance(images.images, ChainedImages):
        return (images.positions, *_held(images.images.first), *_held(images.images.second))
    return (images.positions,)
