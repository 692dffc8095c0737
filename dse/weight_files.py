"""Which texts in a study name a file of weights."""

from pathlib import Path

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")


def is_weights_file(weights: str) -> bool:
    """Tell a file of weights from ``none``, ``pretrain`` or a name of torchvision's."""
    return Path(weights).suffix.lower() in SUFFIXES
