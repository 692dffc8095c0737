"""What a library says about the images that its networks were trained on.

Nothing is downloaded: timm's settings are part of its package, and those of a Hugging Face network
are read from its folder, or from the files that were downloaded before.
"""

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dse.names import library_of
from dse.textfiles import exists

_CHANNELS = 3
_LARGEST = 1e6  # mean or deviation of a colour
_PROCESSOR = "preprocessor_config.json"
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_DEFAULT_INTERPOLATION = "bicubic"  # where the library leaves the choice open


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How images are read for a network.

    Attributes:
        image_size: side in pixels.
        mean: mean of each colour, from 0 to 1.
        std: standard deviation of each colour.
        interpolation: how images are resized.
        crop: share of the short side that is kept.
        origin: whose settings these are, for comments.
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    crop: float
    origin: str

    def table(self) -> dict[str, Any]:
        """Return the settings as keys of a study's `[data]`."""
        return {
            "image_size": self.image_size,
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "crop": self.crop,
        }


def image_settings(
    name: str, *, folder: Path | None, options: Mapping[str, Any] | None = None
) -> ImageSettings | None:
    """Return the settings of timm's or a Hugging Face network.

    Args:
        name: name of the network.
        folder: folder that a relative path starts at.
        options: options of the network; an image size among them is preferred.

    Returns:
        None if the library isn't installed, doesn't know the network, or has no square images of
        three colours for it.
    """
    match library_of(name):
        case "timm":
            found = _of_timm(name)
        case "hf":
            found = _of_transformers(name, folder)
        case _:
            return None
    own = (options or {}).get("img_size", (options or {}).get("image_size"))
    if found is not None and isinstance(own, int) and not isinstance(own, bool):
        return ImageSettings(**{**vars(found), "image_size": own})
    return found


def _of_timm(name: str) -> ImageSettings | None:
    try:
        timm = importlib.import_module("timm")
        config = timm.models.get_pretrained_cfg(name.partition(":")[2], allow_unregistered=True)
    except (ImportError, RuntimeError, ValueError):
        return None  # building the network raises the error
    if config is None or len(config.input_size) != _CHANNELS:
        return None
    channels, height, width = config.input_size
    if channels != _CHANNELS or height != width:
        return None
    return _checked(
        image_size=height,
        mean=config.mean,
        std=config.std,
        interpolation=config.interpolation,
        crop=config.crop_pct,
        origin=f"timm's for {name.partition(':')[2]}",
    )


def _of_transformers(name: str, folder: Path | None) -> ImageSettings | None:
    file = _processor_file(name.partition(":")[2], folder)
    try:
        read = json.loads(file.read_text(encoding="utf-8")) if file is not None else None
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(read, dict) or not read.get("do_normalize", True):
        return None
    size, crop = _side(read.get("size")), _side(read.get("crop_size"))
    if not read.get("do_center_crop", False):
        crop = None
    if size is None:
        return None
    share = read.get("crop_pct") if crop is None else crop / size
    resample = read.get("resample", 2)
    return _checked(
        image_size=crop or size,
        mean=read.get("image_mean"),
        std=read.get("image_std"),
        interpolation=_RESAMPLING.get(resample, "") if isinstance(resample, int) else "",
        crop=share if isinstance(share, int | float) else 1.0,
        origin=f"its {_PROCESSOR}",
    )


def _processor_file(name: str, folder: Path | None) -> Path | None:
    for start in (folder, Path.cwd()):
        file = Path(start or "") / Path(name) / _PROCESSOR
        if exists(file) and file.is_file():
            return file
    try:
        found = importlib.import_module("huggingface_hub").try_to_load_from_cache(name, _PROCESSOR)
    except (ImportError, ValueError):  # a path is no name on the hub
        return None
    return Path(found) if isinstance(found, str) else None


def _side(size: object) -> int | None:
    """Return a square's side from the ways that processors write it."""
    if isinstance(size, Mapping):
        if size.get("height") != size.get("width"):
            return None
        size = size.get("height", size.get("shortest_edge"))
    return size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None


def _checked(
    *, image_size: int, mean: object, std: object, interpolation: str, crop: float, origin: str
) -> ImageSettings | None:
    """Return settings of plain values, or None if one of them is of another kind."""
    three = [
        tuple(map(float, one))
        for one in (mean, std)
        if isinstance(one, list | tuple)
        and len(one) == _CHANNELS
        and all(isinstance(each, int | float) and abs(each) <= _LARGEST for each in one)  # not NaN
    ]
    if len(three) != 2:  # noqa: PLR2004  # mean and deviation
        return None
    known = _RESAMPLING.values()
    return ImageSettings(
        image_size=image_size,
        mean=three[0],  # type: ignore[arg-type]  # three numbers each
        std=three[1],  # type: ignore[arg-type]
        interpolation=interpolation if interpolation in known else _DEFAULT_INTERPOLATION,
        crop=crop if 0 < crop <= 1 else 1.0,
        origin=origin,
    )
