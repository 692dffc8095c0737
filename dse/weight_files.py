"""Which texts in a study name a file of weights."""

from pathlib import Path

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")


def is_weights_file(weights: str) -> bool:
    """Whether a name is that of a file of weights, not ``none`` or one of torchvision's."""
    return Path(weights).suffix.lower() in SUFFIXES
