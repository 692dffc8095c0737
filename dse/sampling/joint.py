"""The joint space: the dimensions of the fine-tuning recipe that vary along with the ratios."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dse.config import Study
from dse.errors import ConfigError, NetworkError
from dse.inputs import InputSpec
from dse.networks.forward import evaluating
from dse.step.checkpointing import block_names
from dse.step.schemes import NORMALISATION
from dse.user_code import USER_ERRORS, described

Value = str | int | float | bool

_SMALLER = (3 / 4, 1 / 2)  # image sizes, as shares of the study's
_IMAGE_MULTIPLE = 8  # image sizes are rounded down to a multiple, as networks halve them repeatedly
_PARTS = (2, 4)  # divisors of the batch size
_DIMENSIONS = {
    "scheme": "training",
    "batch_size": "training",
    "image_size": "data",
    "checkpointing": "training",
    "engine": "training",
    "optimizer": "training",
    "learning_rate": "training",
    "importance": "proxy",
    "reconstruct": "proxy",
}


@dataclass(frozen=True)
class JointChoice:
    """One dimension of a recipe.

    Attributes:
        name: Name of the setting that varies, such as `scheme`.
        values: Its possible values, with the study's own first.
        changes: For each value, the candidate fields that it sets. Empty for the study's own.
    """

    name: str
    values: tuple[Value, ...]
    changes: tuple[Mapping[str, Any], ...]


def joint_choices(study: Study, network: nn.Module) -> tuple[JointChoice, ...]:
    """List the dimensions of a study's joint space. Empty if the study has none.

    With `space.joint.auto`, dimensions that the study does not list get these values: schemes
    `full`, `norm` (if the network has normalisation layers), `bias` and `last`; the batch size, its
    half and its quarter; the image size, three quarters and half of it (if the network runs on
    them); checkpointing by block (if the network has blocks); and the engines `stock` and `lean`.

    Args:
        study: The resolved study.
        network: The unpruned network. It runs on images of the study's size.

    Raises:
        NetworkError: If the network can't run on images of a listed size, or the data can't be
            resized to it.
        ConfigError: If an engine doesn't go with the study's precision.
    """
    joint = study.space.joint
    if joint is None:
        return ()
    listed = {name: tuple(getattr(joint, name)) for name in _DIMENSIONS}
    channels = study.data.image_shape[0]
    if listed["image_size"] and not study.data.resizable:
        raise NetworkError(
            f"space.joint.image_size needs square images, and data.input is "
            f"{list(study.data.input or ())}: take it out"
        )
    for size in listed["image_size"]:
        if (trouble := cannot_run(network, size, channels=channels)) is not None:
            raise NetworkError(
                f"space.joint.image_size holds {size}, on which {study.network.name!r} can't run "
                f"({trouble}): take it out"
            )
    if study.training.precision != "float32" and set(listed["engine"]) - {"stock"}:
        raise ConfigError(
            f"space.joint.engine: a lean network does not run under autocast: set "
            f'training.precision to "float32", not "{study.training.precision}", or take lean out'
        )
    if joint.auto:
        usual = _usual(study, network)
        listed = {name: values or usual.get(name, ()) for name, values in listed.items()}
    choices = [_choice(study, name, values) for name, values in listed.items()]
    return tuple(one for one in choices if len(one.values) > 1)


def _usual(study: Study, network: nn.Module) -> dict[str, tuple[Value, ...]]:
    normalises = any(isinstance(module, NORMALISATION) for module in network.modules())
    batch = study.training.batch_size
    return {
        "scheme": ("full", *(("norm",) if normalises else ()), "bias", "last"),
        "batch_size": tuple(batch // parts for parts in equal_parts(batch, _PARTS)),
        "image_size": tuple(
            size
            for size in smaller_sizes(study.data.image_size, _SMALLER)
            if study.data.resizable
            and cannot_run(network, size, channels=study.data.image_shape[0]) is None
        ),
        "checkpointing": ("none", "blocks") if _has_blocks(network) else (),
        "engine": ("stock", "lean") if study.training.precision == "float32" else (),
    }


def _choice(study: Study, name: str, values: tuple[Value, ...]) -> JointChoice:
    own = getattr(getattr(study, _DIMENSIONS[name]), name)
    every = (own, *(value for value in values if value != own))
    return JointChoice(name, every, tuple(dict(_changes(study, name, own, v)) for v in every))


def _changes(study: Study, name: str, own: Value, value: Value) -> Iterator[tuple[str, Any]]:
    if value == own:
        return
    yield name, value
    if name == "batch_size":  # accumulate, so that the optimizer's batch stays the study's
        yield "accumulate", study.training.accumulate * int(own) // int(value)


def _has_blocks(network: nn.Module) -> bool:
    try:
        block_names(network)
    except NetworkError:
        return False
    return True


def smaller_sizes(side: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Return smaller image sizes, rounded down to a multiple of 8, largest first.

    Args:
        side: side of the study's images in pixels.
        shares: the smaller sides, as shares of it.
    """
    sizes = {int(side * share) // _IMAGE_MULTIPLE * _IMAGE_MULTIPLE for share in shares}
    return tuple(sorted((one for one in sizes if _IMAGE_MULTIPLE <= one < side), reverse=True))


def equal_parts(batch_size: int, parts: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of equal parts, of more than one image, that a batch can be split into."""
    return tuple(one for one in parts if batch_size % one == 0 and batch_size // one > 1)


def cannot_run(network: nn.Module, size: int, *, channels: int = 3) -> str | None:
    """Return why a network can't run on square images of a size, or None if it can."""
    try:
        with evaluating(network), torch.no_grad():
            network(InputSpec.image(size, channels=channels).example(1))
    except USER_ERRORS as error:
        return described(error)
    return None
