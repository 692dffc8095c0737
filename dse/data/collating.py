"""Takes an item of a torch data set apart into input and target."""

from collections.abc import Mapping
from typing import Any

from PIL import Image

TARGET_KEYS = ("labels", "label", "target", "targets", "mask", "masks")
"""Keys of a target in an item that is a dictionary; the first that there is counts."""


def pair_of(item: Any) -> tuple[Any, Any]:
    """Return the input and the target of an item, which is a pair or a dictionary of both.

    Args:
        item: what the data set returns, or a batch of it from its collate.

    Raises:
        KeyError: if a dictionary holds no target.
    """
    if isinstance(item, Mapping):
        key = next((one for one in TARGET_KEYS if one in item), None)
        if key is None:
            raise KeyError(f"none of {', '.join(TARGET_KEYS)} among {', '.join(map(str, item))}")
        inputs = {name: value for name, value in item.items() if name != key}
        first = next(iter(inputs.values()), None)
        return first if len(inputs) == 1 and isinstance(first, Image.Image) else inputs, item[key]
    given, target = item
    return given, target


def first_of(batch: Any) -> Any:
    """Return the only item of a batch."""
    if isinstance(batch, Mapping):
        return {name: value[0] for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(value[0] for value in batch)
    return batch[0]
