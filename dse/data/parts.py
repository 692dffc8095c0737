"""The parts of a data set and their batches."""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from dse.data.summary import DataSummary
from dse.errors import DataError
from dse.names import Augmentation, MemoryFormat

Triple = tuple[float, float, float]
Batch = tuple[Tensor, Tensor]

_FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
# Crops move by up to an eighth of the side, as the usual 4 pixels of 32 do.
_CROP_SHARE = 8


class Images(Protocol):
    """Square colour images of one size, read by position."""

    def __len__(self) -> int:
        """Count the images."""

    def fetch(self, positions: Tensor) -> Tensor:
        """Read images.

        Args:
            positions: (n,) int64.

        Returns:
            (n, 3, size, size) uint8.
        """


@runtime_checkable
class VaryingImages(Images, Protocol):
    """Images that a data set's own random transforms may vary.

    Attributes:
        varies: Whether they do.
    """

    @property
    def varies(self) -> bool:
        """Whether an image is another one each time."""

    def varied(self, positions: Tensor, *, seed: int) -> Tensor:
        """Read images, varied at random, the same way for the same seed.

        Args:
            positions: (n,) int64.
            seed: Of all randomness.

        Returns:
            (n, 3, size, size) uint8.
        """


@dataclass(frozen=True, eq=False)
class LazyImages:
    """A selection of images that is read anew for each batch.

    Attributes:
        images: Where they are read from.
        positions: (n,) int64, which of them, in order.
    """

    images: Images
    positions: Tensor

    def __len__(self) -> int:
        return len(self.positions)

    def fetch(self, positions: Tensor) -> Tensor:
        """Read images by their position in the selection: (n, 3, size, size) uint8."""
        return self.images.fetch(self.positions[positions])

    @property
    def varies(self) -> bool:
        """Whether their own random transforms make an image another one each time."""
        return isinstance(self.images, VaryingImages) and self.images.varies

    def varied(self, positions: Tensor, *, seed: int) -> Tensor:
        """Read images, varied by their own random transforms: (n, 3, size, size) uint8."""
        if isinstance(self.images, VaryingImages):
            return self.images.varied(self.positions[positions], seed=seed)
        return self.fetch(positions)


@dataclass(frozen=True, eq=False)
class ChainedImages:
    """Images of one part, and after them those of another; both may vary.

    Attributes:
        first, second: Each in memory, (n, 3, size, size) uint8, or lazily read.
    """

    first: Tensor | LazyImages
    second: Tensor | LazyImages

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    @property
    def varies(self) -> bool:
        """Whether images of either part vary."""
        return any(isinstance(one, LazyImages) and one.varies for one in (self.first, self.second))

    def fetch(self, positions: Tensor) -> Tensor:
        """Read images: (n, 3, size, size) uint8."""
        return self._read(positions, seed=None)

    def varied(self, positions: Tensor, *, seed: int) -> Tensor:
        """Read images, varied where they vary: (n, 3, size, size) uint8."""
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One part of a data set: to train on, to select by, or to validate with.

    Attributes:
        name: "train", "selection" or "validation".
        images: (n, 3, size, size) uint8 in memory, or lazily read.
        labels: (n,) int64, positions among the data's labels.
        mean: Subtracted from each colour, on the scale from 0 to 1.
        std: By which each colour is then divided.
        augment: How training batches are varied; batches without a seed never are. Images whose
            own transforms are random vary beside it, and without a seed in one way always.
    """

    name: str
    images: Tensor | LazyImages = field(repr=False)
    labels: Tensor = field(repr=False)
    mean: Triple
    std: Triple
    augment: Augmentation = "none"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def varies(self) -> bool:
        """Whether its training batches show an image in another way each epoch."""
        own = isinstance(self.images, LazyImages) and self.images.varies
        return own or self.augment != "none"

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        drop_last: bool = False,
        memory_format: MemoryFormat = "contiguous",
        device: str | torch.device = "cpu",
    ) -> Iterator[Batch]:
        """Go once through the part.

        Args:
            batch_size: Images in a batch.
            seed: Shuffles and augments, the same way for the same seed; None keeps the order and
                the images as they are.
            drop_last: Leave out a last batch that isn't full.
            memory_format: Layout of the images.
            device: Where the batches are put.

        Returns:
            Iterator over (images, labels): (n, 3, size, size) float32, normalised, and (n,) int64.

        Raises:
            DataError: With `drop_last`, not even one batch is full.
        """
        chosen = self.order(batch_size, seed=seed, drop_last=drop_last)
        return self._prepared(chosen, seed=seed, memory_format=memory_format, device=device)

    def order(
        self, batch_size: int, *, seed: int | None = None, drop_last: bool = False
    ) -> list[Tensor]:
        """Positions of the images of each batch that `batches` gives for the same arguments.

        Raises:
            DataError: With `drop_last`, not even one batch is full.
        """
        if drop_last and len(self) < batch_size:
            raise DataError(
                f"the {self.name} part has {len(self)} images, too few for one batch of "
                f"{batch_size}: lower training.batch_size or give more images"
            )
        order = torch.arange(len(self))
        if seed is not None:
            order = torch.randperm(len(self), generator=_generator(seed, "order"))
        fewest = batch_size if drop_last else 1
        return [one for one in torch.split(order, batch_size) if len(one) >= fewest]

    def _prepared(
        self,
        chosen: list[Tensor],
        *,
        seed: int | None,
        memory_format: MemoryFormat,
        device: str | torch.device,
    ) -> Iterator[Batch]:
        mean = torch.tensor(self.mean).view(1, 3, 1, 1) * 255
        std = torch.tensor(self.std).view(1, 3, 1, 1) * 255
        for number, (positions, raw) in enumerate(
            zip(chosen, self._read(chosen, seed), strict=True)
        ):
            images = raw
            if seed is not None:
                images = augmented(raw, how=self.augment, generator=_generator(seed, number))
            images = images.float().sub_(mean).div_(std)
            images = images.contiguous(memory_format=_FORMATS[memory_format])
            yield images.to(device), self.labels[positions].to(device)

    def _read(self, chosen: list[Tensor], seed: int | None) -> Iterator[Tensor]:
        """Read the images of each batch; from files, the next batch while this one is used."""
        if isinstance(self.images, Tensor):
            yield from (self.images[positions] for positions in chosen)
            return
        if self.images.varies:  # not ahead: it draws from the random numbers that dropout uses
            for some in chosen:
                yield _read_of(self.images, some, seed=seed)
            return
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = reader.submit(self.images.fetch, chosen[0]) if chosen else None
            for positions in [*chosen[1:], None]:
                if ahead is None:
                    return
                ready = ahead.result()
                ahead = None if positions is None else reader.submit(self.images.fetch, positions)
                yield ready


@dataclass(frozen=True, kw_only=True, eq=False)
class DataParts:
    """A data set in disjoint parts.

    Attributes:
        train: What candidates are fine-tuned on.
        selection: What the search compares candidates by; taken from the training part.
        validation: Read once, for the figures that are shown.
        labels: Names of the labels, in the order of the network's outputs.
        image_size: Side of the images, in pixels.
        mean: Mean of each colour that is subtracted.
        std: Deviation of each colour that is divided by.
        files: Size in bytes of each image file by its part, label and name, which tells most
            exchanged images without reading them; None where they lie in no files of their own.
        summary: What was understood of the data; None for parts that no study describes.
    """

    train: Part
    selection: Part
    validation: Part
    labels: tuple[str, ...]
    image_size: int
    mean: Triple
    std: Triple
    files: Mapping[str, int] | None = None
    summary: DataSummary | None = None

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return len(self.labels)


def augmented(images: Tensor, *, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Vary images at random.

    Args:
        images: (n, channels, height, width).
        how: "flip" mirrors every other image on average; "crop-flip" also moves each by up to an
            eighth of its side, filling in by reflection; "none" changes nothing.
        generator: Source of all randomness.

    Returns:
        Images of the same shape and type.
    """
    if how == "none":
        return images
    number, _, height, width = images.shape
    columns = torch.arange(width).repeat(number, 1)
    flip = torch.rand(number, generator=generator) < 0.5  # noqa: PLR2004 -- every other image
    columns[flip] = columns[flip].flip(1)
    rows = torch.arange(height).repeat(number, 1)
    if how == "crop-flip":
        rows = _reflected(rows + _shift(number, height, generator), height)
        columns = _reflected(columns + _shift(number, width, generator), width)
    batch = torch.arange(number)[:, None, None, None]
    channel = torch.arange(images.shape[1])[None, :, None, None]
    return images[batch, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _shift(number: int, side: int, generator: torch.Generator) -> Tensor:
    """Draw one shift per image, at most an eighth of the side: (number, 1) int64."""
    most = side // _CROP_SHARE
    return torch.randint(-most, most + 1, (number, 1), generator=generator)


def _reflected(positions: Tensor, side: int) -> Tensor:
    """Mirror positions outside 0..side-1 back inside, without repeating the edge."""
    return (side - 1) - ((side - 1) - positions.abs()).abs()


def _generator(seed: int, purpose: str | int) -> torch.Generator:
    """Return a generator of its own for each purpose, so that none depends on what came before."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
