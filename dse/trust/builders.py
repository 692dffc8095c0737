"""Networks that an untrusted file may name: only torchvision's own classifiers."""

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
    """Return why a network may not be built for an untrusted file.

    Args:
        name: name of the network as in a study.
        options: options of the network's factory.

    Returns:
        The reason in one line; None for a torchvision classifier whose options are plain values
        that its constructor accepts, and that downloads nothing.
    """
    if not name.startswith(TORCHVISION):
        return f"network {name!r} runs code of its own"
    builder_name = name.removeprefix(TORCHVISION)
    if builder_name not in torchvision.models.list_models(module=torchvision.models):
        return f"network {name!r} isn't a classifier of the installed torchvision"
    known = _option_names(builder_name)
    for key, value in options.items():
        if key in _DOWNLOADING or key not in known:
            return f"network {name!r} takes no option {key[:40]!r} from an untrusted file"
        if not _is_plain(value):
            return f"network {name!r}: option {key!r} isn't a plain value of limited size"
    return None


def _option_names(builder_name: str) -> frozenset[str]:
    """Return the argument names of a builder and of the class it builds."""
    builder = inspect.unwrap(torchvision.models.get_model_builder(builder_name))
    built = typing.get_type_hints(builder).get("return")
    found = set(inspect.signature(builder).parameters)
    if isinstance(built, type) and issubclass(built, nn.Module):
        found |= set(inspect.signature(built).parameters)
    return frozenset(found - {"self", "args", "kwargs", *_DOWNLOADING})


def _is_plain(value: object) -> bool:
    """Return whether a value consists of JSON types and is neither deep, long nor large."""
    level, count = [value], 0
    for _ in range(_DEEPEST):
        below: list[object] = []
        for one in level:
            count += 1
            if isinstance(one, list | tuple):
                below += one
            elif isinstance(one, int | float) and not isinstance(one, bool):
                if not abs(one) <= _LARGEST:  # also refuses NaN
                    return False
            elif not isinstance(one, str | bool | None):
                return False
        if count + len(below) > _MOST_VALUES:
            return False
        level = below
    return not level
