"""Tiny image files and data sets on disk."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, *, width: int = 10, height: int = 8) -> Image.Image:
    """A picture of smooth random colours."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write_folder(root: Path, counts: Mapping[str, int]) -> Path:
    """Write so many pictures for each label, as root/LABEL/NUMBER.png."""
    for label, count in counts.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            seed = hash_of(f"{label}{number}")
            picture(seed).save(root / label / f"{number:03d}.png")
    return root


def hash_of(text: str) -> int:
    """A number that is the same in every process."""
    return int.from_bytes(text.encode(), "big") % 2**32
