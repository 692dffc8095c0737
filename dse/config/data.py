"""The images of a study."""

from pydantic import Field, field_validator, model_validator

from dse.config.base import Frozen, KeyedError
from dse.config.fields import DataName, FolderPath, ImageSize, Labels, Share, Size, Triple
from dse.names import Augmentation

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Of all 1,797 scans resized to 32x32, on the scale from 0 to 1.
DIGITS_MEAN = (0.3052, 0.3052, 0.3052)
DIGITS_STD = (0.3236, 0.3236, 0.3236)


class DataConfig(Frozen):
    """The images that a network is fine-tuned and evaluated on.

    Attributes:
        name: "digits", "folder", "torchvision:NAME" or "package.module:factory".
        root: folder of the images, folder of a torchvision data set (downloaded if missing), or
            folder in which a factory's module is searched.
        labels: a subset of the data's labels, in the order of the network's outputs.
        image_size: side of the images in pixels.
        validation_share: share of all images, if the data have no validation part of their own.
        selection_share: share of the remaining images, on which the search scores candidates.
        augment: augmentation of training images.
        mean: mean of each colour, from 0 to 1.
        std: standard deviation of each colour, from 0 to 1.
        in_memory_limit: maximum bytes of decoded images that are held in memory.
    """

    name: DataName
    root: FolderPath | None = None
    labels: Labels | None = None
    image_size: ImageSize = 32
    validation_share: Share = 0.33
    selection_share: Share = 0.25
    augment: Augmentation = "none"
    mean: Triple = Field(
        default_factory=lambda seen: DIGITS_MEAN if seen.get("name") == "digits" else IMAGENET_MEAN
    )
    std: Triple = Field(
        default_factory=lambda seen: DIGITS_STD if seen.get("name") == "digits" else IMAGENET_STD
    )
    in_memory_limit: Size = 2 * 1024**3

    @field_validator("std")
    @classmethod
    def _check_std(cls, std: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(std) <= 0:
            raise ValueError("must be three numbers above 0")
        return std

    @field_validator("mean")
    @classmethod
    def _check_mean(cls, mean: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(mean) < 0 or max(mean) > 1:
            raise ValueError("must be three numbers from 0 to 1: divide those for bytes by 255")
        return mean

    @model_validator(mode="after")
    def _check_root(self) -> "DataConfig":
        if self.name == "folder" and self.root is None:
            raise KeyedError(
                "root",
                'is missing: data.name = "folder" reads the folder that root names; '
                'add root = "path/to/images" or --set data.root=path/to/images',
            )
        if self.name == "digits" and self.root is not None:
            raise KeyedError("root", 'has no use with data.name = "digits": take it out')
        return self

    @property
    def torchvision_name(self) -> str | None:
        """Name of the class in torchvision.datasets; None for other data."""
        prefix, _, name = self.name.partition(":")
        return name if prefix == "torchvision" else None
