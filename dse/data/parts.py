"""The parts of a data set, and their batches."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from dse.data.augment import augmented
from dse.data.summary import DataSummary
from dse.data.transforms import Transforms
from dse.digests import derived_seed
from dse.errors import DataError
from dse.inputs import InputSpec
from dse.memory_formats import laid_out
from dse.names import Augmentation, MemoryFormat
from dse.tasks.task import Task, plain_task

Colours = tuple[float, ...]
Batch = tuple[Tensor, Tensor]


class Images(Protocol):
    """Square RGB images of one size, read by position."""

    def __len__(self) -> int:
        """Return the number of images."""

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
        varies: whether they vary.
    """

    @property
    def varies(self) -> bool:
        """Whether reading an image twice gives different results."""

    def varied(self, positions: Tensor, *, seed: int) -> Tensor:
        """Read images with random transforms, reproducibly for a seed.

        Args:
            positions: (n,) int64.
            seed: seed of all randomness.

        Returns:
            (n, 3, size, size) uint8.
        """


@dataclass(frozen=True, eq=False)
class LazyImages:
    """A selection of images that is read again for each batch.

    Attributes:
        images: images to read from.
        positions: positions of the selected images in order, (n,) int64.
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
        """Whether the images' own random transforms vary them."""
        return isinstance(self.images, VaryingImages) and self.images.varies

    def varied(self, positions: Tensor, *, seed: int) -> Tensor:
        """Read images with their own random transforms: (n, 3, size, size) uint8."""
        if isinstance(self.images, VaryingImages):
            return self.images.varied(self.positions[positions], seed=seed)
        return self.fetch(positions)


@dataclass(frozen=True, eq=False)
class ImagesInMemory:
    """Images in memory, read by position like any others.

    Attributes:
        pixels: (n, 3, size, size) uint8.
    """

    pixels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def fetch(self, positions: Tensor) -> Tensor:
        """Read images: (n, 3, size, size) uint8."""
        return self.pixels[positions]


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One part of a data set: for training, selection or validation.

    Attributes:
        name: "train", "selection" or "validation".
        images: (n, channels, height, width) uint8 in memory, or read lazily; or samples of any
            other shape, of bytes, float32 or int64.
        labels: label numbers, (n,) int64, or values to predict, (n, outputs) float32; zeros where
            masks are the targets.
        masked: whether the last channel of the images is the mask of classes, which is augmented
            with them and then becomes the target.
        mean: subtracted from each channel, on the scale from 0 to 1 for bytes; None for nothing.
        std: each channel is then divided by it; None for nothing.
        augment: augmentation of training batches; batches without a seed aren't augmented. Random
            transforms of the images' own are applied as well, always alike without a seed.
        transforms: transforms that training batches are augmented by after that; None for none.
    """

    name: str
    images: Tensor | LazyImages = field(repr=False)
    labels: Tensor = field(repr=False)
    mean: Colours | None
    std: Colours | None
    augment: Augmentation = "none"
    masked: bool = False
    transforms: Transforms | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def varies(self) -> bool:
        """Whether training batches show an image differently in each epoch."""
        own = isinstance(self.images, LazyImages) and self.images.varies
        return own or self.augment != "none" or self.transforms is not None

    def subset(self, positions: Tensor) -> "Part":
        """Return a part with the images at some positions, (n,) int64; no image is copied."""
        images: Images = (
            ImagesInMemory(self.images) if isinstance(self.images, Tensor) else self.images
        )
        return replace(self, images=LazyImages(images, positions), labels=self.labels[positions])

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        drop_last: bool = False,
        memory_format: MemoryFormat = "contiguous",
        device: str | torch.device = "cpu",
    ) -> Iterator[Batch]:
        """Iterate once over the part.

        Args:
            batch_size: images per batch.
            seed: seed of shuffling and augmentation; None keeps order and images unchanged.
            drop_last: whether to drop an incomplete last batch.
            memory_format: memory format of the images.
            device: device that batches are moved to.

        Returns:
            Iterator over (images, labels): (n, channels, height, width) float32, normalised, or
            other samples; and (n,) int64, (n, outputs) float32, or (n, height, width) int64.

        Raises:
            DataError: if `drop_last` is set and no batch is complete.
        """
        chosen = self.order(batch_size, seed=seed, drop_last=drop_last)
        return self._prepared(chosen, seed=seed, memory_format=memory_format, device=device)

    def order(
        self, batch_size: int, *, seed: int | None = None, drop_last: bool = False
    ) -> list[Tensor]:
        """Return the positions of each batch that `batches` yields for the same arguments.

        Raises:
            DataError: if `drop_last` is set and no batch is complete.
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
        for number, (positions, raw) in enumerate(
            zip(chosen, self._read(chosen, seed), strict=True)
        ):
            images = raw
            if seed is not None:
                images = augmented(raw, how=self.augment, generator=_generator(seed, number))
                images = self._transformed(images, derived_seed(seed, "transforms", number))
            targets = self.labels[positions]
            if self.masked:
                images, targets = images[:, :-1], images[:, -1].long()
            images = normalised(images, mean=self.mean, std=self.std)
            images = laid_out(images, memory_format)
            yield images.to(device), targets.to(device)

    def _transformed(self, images: Tensor, seed: int) -> Tensor:
        if self.transforms is None:
            return images
        try:
            return self.transforms(images, seed=seed)
        except ValueError as error:
            raise DataError(f"data.transforms: {error}") from error

    def _read(self, chosen: list[Tensor], seed: int | None) -> Iterator[Tensor]:
        """Read the images of each batch; from files, the next batch is read in the background."""
        if isinstance(self.images, Tensor):
            yield from (self.images[positions] for positions in chosen)
            return
        if self.images.varies:  # not in the background: it uses the generators of dropout
            for some in chosen:
                yield (
                    self.images.fetch(some) if seed is None else self.images.varied(some, seed=seed)
                )
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
        train: part that candidates are fine-tuned on.
        selection: part that the search scores candidates on; split off the training images.
        validation: part for the reported figures.
        labels: names of the labels, in the order of the network's outputs.
        image_size: side of the images in pixels.
        mean: mean of each channel, subtracted; None for nothing.
        std: standard deviation of each channel, divided by; None for nothing.
        inputs: shape and type of one sample; None for square images of three colours.
        files: size in bytes of each image file by part, label and name, which reveals most changes
            without reading images; None if the images are not files.
        summary: summary of the data; None for parts that no study describes.
        given_task: what the labels are for; None for a classification by accuracy.
    """

    train: Part
    selection: Part
    validation: Part
    labels: tuple[str, ...]
    image_size: int
    mean: Colours | None
    std: Colours | None
    inputs: InputSpec | None = None
    files: Mapping[str, int] | None = None
    summary: DataSummary | None = None
    given_task: Task | None = None

    @cached_property
    def task(self) -> Task:
        """What the labels are for."""
        return self.given_task or plain_task(self.classes)

    @property
    def input_spec(self) -> InputSpec:
        """Shape and type of one sample."""
        return self.inputs or InputSpec.image(self.image_size)

    @property
    def classes(self) -> int:
        """Number of labels."""
        return len(self.labels)


def normalised(samples: Tensor, *, mean: Colours | None, std: Colours | None) -> Tensor:
    """Return samples as a network takes them.

    Args:
        samples: (n, channels, ...) of bytes, float32 or int64.
        mean: subtracted from each channel, on the scale from 0 to 1 for bytes; None for nothing.
        std: each channel is then divided by it; None for nothing.

    Returns:
        float32 of the same shape; whole numbers are returned as they are.
    """
    if samples.dtype == torch.int64:
        return samples
    scale = 255 if samples.dtype == torch.uint8 else 1
    shape = (1, -1, *([1] * (samples.ndim - 2)))
    low = 0.0 if mean is None else torch.tensor(mean).view(shape) * scale
    wide = float(scale) if std is None else torch.tensor(std).view(shape) * scale
    return samples.to(torch.float32, copy=True).sub_(low).div_(wide)


def _generator(seed: int, purpose: str | int) -> torch.Generator:
    """Return a generator for one purpose, so that no draw depends on earlier ones."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, bits=56))
