"""How image files and other images are brought to one shape."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from dse.names import Interpolation

if TYPE_CHECKING:
    from dse.config import DataConfig

RESAMPLING: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The shape of images after reading, and how they get it.

    Attributes:
        channels: 3 for colours, 1 for grey.
        height: in pixels.
        width: in pixels.
        interpolation: how images are resized.
        crop: share of the largest part of the wanted proportions that is kept, in the middle.
    """

    channels: int = 3
    height: int
    width: int
    interpolation: Interpolation = "bilinear"
    crop: float = 1.0

    @classmethod
    def square(cls, size: int) -> "Reading":
        """Return how square images of three colours are read."""
        return cls(height=size, width=size)

    @classmethod
    def of(cls, config: "DataConfig") -> "Reading":
        """Return how the images of a study are read."""
        channels, height, width = config.image_shape
        return cls(
            channels=channels,
            height=height,
            width=width,
            interpolation=config.interpolation,
            crop=config.crop,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.height, self.width

    @property
    def mode(self) -> str:
        """Pillow's mode of such images."""
        return "L" if self.channels == 1 else "RGB"

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the part of an image that is kept, as left, top, right and bottom.

        Args:
            width: width of the image in pixels.
            height: height of the image in pixels.
        """
        if width * self.height <= height * self.width:
            kept_width, kept_height = float(width), width * self.height / self.width
        else:
            kept_width, kept_height = height * self.width / self.height, float(height)
        kept_width, kept_height = kept_width * self.crop, kept_height * self.crop
        left, top = (width - kept_width) / 2, (height - kept_height) / 2
        return left, top, left + kept_width, top + kept_height
