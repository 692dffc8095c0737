"""Which networks a file may name without being trusted: torchvision's own classifiers alone."""

import inspect
import typing
from collections.abc import Mapping
from typing import Any

import torchvision
from torch import nn

TORCHVISION = "torchvision:"
_DOWNLOADING = ("weights", "weights_backbone", "pretrained", "pretrained_backbone")
_MOST_VALUES = 512
_DEEPEST = 6
_LARGEST = 65_536


def objection_to_network(name: str, options: Mapping[str, Any]) -> str | None:
    """Say why a network may not be built for an untrusted file.

    Args:
        name: as in a study.
        options: of the network's factory.

    Returns:
        The reason, in one line; None for a classifier of torchvision whose options are plain
        values that its constructor knows, and download nothing.
    """
    if not name.startswith(TORCHVISION):
        return f"network {name!r} runs code of its own"
    builder_name = name.removeprefix(TORCHVISION)
    if builder_name not in torchvision.models.list_models(module=torchvision.models):
        return f"network {name!r} is no classifier of this torchvision"
    known = _option_names(builder_name)
    for key, value in options.items():
        if key in _DOWNLOADING or key not in known:
            return f"network {name!r} takes no option {key[:40]!r} from a file"
        if not _is_plain(value):
            return f"network {name!r}: option {key!r} is no plain value of reasonable size"
    return None


def _option_names(builder_name: str) -> frozenset[str]:
    """Names of the arguments of a builder and of the class it builds."""
    builder = inspect.unwrap(torchvision.models.get_model_builder(builder_name))
    built = typing.get_type_hints(builder).get("return")
    found = set(inspect.signature(builder).parameters)
    if isinstance(built, type) and issubclass(built, nn.Module):
        found |= set(inspect.signature(built).parameters)
    return frozenset(found - {"self", "args", "kwargs", *_DOWNLOADING})


def _is_plain(value: object) -> bool:
    """Whether a value is one that JSON has, neither deep nor long nor large."""
    level, count = [value], 0
    for _ in range(_DEEPEST):
        below: list[object] = []
        for one in level:
            count += 1
            if isinstance(one, list | tuple):
                below += one
            elif isinstance(one, int | float) and not isinstance(one, bool):
                if not abs(one) <= _LARGEST:  # NaN is no number either
                    return False
            elif not isinstance(one, str | bool | None):
                return False
        if count + len(below) > _MOST_VALUES:
            return False
        level = below
    return not level
