"""The images of a study."""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from dse.config.base import Frozen, KeyedError
from dse.config.fields import (
    Colours,
    Columns,
    DataName,
    FolderPath,
    ImageSize,
    Labels,
    Shape,
    Share,
    Size,
    Tokens,
    Transforms,
)
from dse.names import Augmentation, Interpolation

DEFAULT_TOKENS = 128
_IMAGE_CHANNELS = (1, 3)
_IMAGE_DIMENSIONS = 3
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Of all 1,797 scans resized to 32x32, on the scale from 0 to 1.
DIGITS_MEAN = (0.3052, 0.3052, 0.3052)
DIGITS_STD = (0.3236, 0.3236, 0.3236)
# Of images as luminances.
GREY_MEAN = (0.449,)
GREY_STD = (0.226,)


def square_side(shape: tuple[int, ...] | None) -> int | None:
    """Return the side of square images of a shape; None of any other shape."""
    if shape is None or len(shape) != _IMAGE_DIMENSIONS or shape[1] != shape[2]:
        return None
    return shape[1]


def _is_of_items(name: str) -> bool:
    """Return whether samples come ready to use, and no files of images are read."""
    return ":" in name or name == "hf"


def _sized(transforms: Iterable[Mapping[str, Any]] | None) -> bool:
    """Return whether a transform gives images a size of its own."""
    return any("size" in one or _sized(one.get("transforms")) for one in transforms or ())


def _normalisation(
    digits: tuple[float, ...], colours: tuple[float, ...], grey: tuple[float, ...]
) -> Callable[[dict[str, Any]], tuple[float, ...] | None]:
    """Return a default for `mean` or `std` that fits the data and their channels."""

    def default(seen: dict[str, Any]) -> tuple[float, ...] | None:
        shape, name = seen.get("input"), str(seen.get("name"))
        if shape is not None and (len(shape) != _IMAGE_DIMENSIONS or _is_of_items(name)):
            return None  # values are used as they are
        chosen = digits if name == "digits" else colours
        if shape is None or shape[0] == len(chosen):
            return chosen
        return chosen[:1] if name == "digits" else grey

    return default


class DataConfig(Frozen):
    """The images that a network is fine-tuned and evaluated on.

    Attributes:
        name: "digits", "folder", "hf", "torchvision:NAME" or "package.module:factory".
        root: folder of the images, folder that `save_to_disk` of Hugging Face's datasets wrote,
            folder of a torchvision data set (downloaded if missing), or folder in which a factory's
            module is searched.
        table: CSV file with a row for each image of the folder: its first column holds the file's
            name, and each other column a label, as 0 and 1, or a number to predict. A column
            `split` may tell train, val and test images apart.
        labels: a subset of the data's labels, or of the table's columns, in the order of the
            network's outputs.
        columns: names of the columns of "input" and "target" of a saved data set, each one or
            several; found by their types and names where they aren't given.
        tokenizer: folder of the tokenizer for the text of a saved data set.
        tokens: number of tokens that each text is cut or filled up to.
        image_size: side of the images in pixels.
        input: shape of one sample. For images channels (1 for grey, 3 for colours), height and
            width; None for square images of three colours. For items of a factory that are no such
            images any shape; None reads it off the first item.
        validation_share: share of all images, if the data have no validation part of their own.
        selection_share: share of the remaining images, on which the search scores candidates.
        augment: augmentation of training images.
        transforms: transforms of torchvision.transforms.v2 that augment training images instead, as
            tables of a name and options; None for none. Where a transform has a `size` that isn't
            given, it is that of the images.
        mean: mean of each channel, from 0 to 1; None uses values as they are.
        std: standard deviation of each channel, from 0 to 1; None likewise.
        interpolation: how images are resized.
        crop: share of an image's short side that is kept, in the middle; below 1, the edges are
            cut off.
        in_memory_limit: maximum bytes of decoded images that are held in memory.
    """

    name: DataName
    root: FolderPath | None = None
    table: FolderPath | None = None
    labels: Labels | None = None
    columns: Columns | None = None
    tokenizer: FolderPath | None = None
    tokens: Tokens = DEFAULT_TOKENS
    input: Shape | None = None
    image_size: ImageSize = Field(default_factory=lambda seen: square_side(seen.get("input")) or 32)
    validation_share: Share = 0.33
    selection_share: Share = 0.25
    augment: Augmentation = "none"
    transforms: Transforms | None = None
    mean: Colours | None = Field(
        default_factory=_normalisation(DIGITS_MEAN, IMAGENET_MEAN, GREY_MEAN)
    )
    std: Colours | None = Field(default_factory=_normalisation(DIGITS_STD, IMAGENET_STD, GREY_STD))
    interpolation: Interpolation = "bilinear"
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    in_memory_limit: Size = 2 * 1024**3

    @field_validator("std")
    @classmethod
    def _check_std(cls, std: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if std is not None and min(std) <= 0:
            raise ValueError("must be numbers above 0, one for each channel")
        return std

    @field_validator("mean")
    @classmethod
    def _check_mean(
        cls, mean: tuple[float, ...] | None, seen: ValidationInfo
    ) -> tuple[float, ...] | None:
        images = seen.data.get("input") is None or not _is_of_items(str(seen.data.get("name")))
        if mean is not None and images and (min(mean) < 0 or max(mean) > 1):
            raise ValueError(
                "must be numbers from 0 to 1, one for each channel: divide those for bytes by 255"
            )
        return mean

    @model_validator(mode="after")
    def _check_root(self) -> "DataConfig":
        if self.name in ("folder", "hf") and self.root is None:
            raise KeyedError(
                "root",
                f'is missing: data.name = "{self.name}" reads the folder that root names; '
                'add root = "path/to/images" or --set data.root=path/to/images',
            )
        for key in ("columns", "tokenizer"):
            if getattr(self, key) is not None and self.name != "hf":
                raise KeyedError(key, 'has a use only with data.name = "hf": take it out')
        if self.table is not None and self.name != "folder":
            raise KeyedError("table", 'has a use only with data.name = "folder": take it out')
        if self.name == "digits" and self.root is not None:
            raise KeyedError("root", 'has no use with data.name = "digits": take it out')
        return self

    @model_validator(mode="after")
    def _check_transforms(self) -> "DataConfig":
        if self.transforms is not None and self.augment != "none":
            raise KeyedError(
                "augment",
                'stands beside data.transforms: take it out; {name = "RandomHorizontalFlip"} '
                "mirrors likewise",
            )
        return self

    @model_validator(mode="after")
    def _check_input(self) -> "DataConfig":
        shape = self.input
        channels = _IMAGE_CHANNELS[1] if shape is None else shape[0]
        if shape is not None and not self.has_items:
            if len(shape) != _IMAGE_DIMENSIONS or channels not in _IMAGE_CHANNELS:
                raise KeyedError(
                    "input",
                    "must be [channels, height, width] with 1 or 3 channels for images, as in "
                    "[1, 32, 32]",
                )
            if square_side(shape) not in (None, self.image_size):
                raise KeyedError(
                    "image_size", f"differs from data.input = {list(shape)}: leave one of them out"
                )
        for key, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != channels:
                raise KeyedError(
                    key, f"has {len(values)} numbers for {channels} channels: give one for each"
                )
        return self

    @property
    def is_factory(self) -> bool:
        """Whether a user's own code returns the data."""
        return ":" in self.name and self.torchvision_name is None

    @property
    def has_items(self) -> bool:
        """Whether the data are items that may be no images."""
        return self.is_factory or self.name == "hf"

    @property
    def resizable(self) -> bool:
        """Whether candidates may vary the image size: square images that are read from files."""
        if _sized(self.transforms):
            return False
        if self.input is None:
            return True
        return square_side(self.input) is not None and not self.has_items

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of images after reading."""
        if self.input is None or len(self.input) != _IMAGE_DIMENSIONS:
            return _IMAGE_CHANNELS[1], self.image_size, self.image_size
        channels, height, width = self.input
        if square_side(self.input) is not None:  # candidates may vary the size
            height = width = self.image_size
        return channels, height, width

    @property
    def torchvision_name(self) -> str | None:
        """Name of the class in torchvision.datasets; None for other data."""
        prefix, _, name = self.name.partition(":")
        return name if prefix == "torchvision" else None
