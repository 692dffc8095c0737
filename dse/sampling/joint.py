"""The fine-tuning recipes of a joint space, from a study's lists to what candidates say."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dse.config import Study
from dse.errors import NetworkError
from dse.networks.build import example_input
from dse.networks.forward import evaluating
from dse.step.checkpointing import block_names
from dse.step.schemes import NORMALISATION

Value = str | int | float | bool

_SMALLER = (3 / 4, 1 / 2)  # image sizes, as shares of the study's
_IMAGE_MULTIPLE = 8  # sides are rounded down to it: networks halve them several times
_PARTS = (2, 4)  # into which a batch is cut
_DIMENSIONS = {
    "scheme": "training",
    "batch_size": "training",
    "image_size": "data",
    "checkpointing": "training",
    "optimizer": "training",
    "learning_rate": "training",
    "importance": "proxy",
    "reconstruct": "proxy",
}


@dataclass(frozen=True)
class JointChoice:
    """One dimension of a recipe.

    Attributes:
        name: of the key that varies, such as `scheme`.
        values: what it may be, the study's own first.
        changes: for each value, what a candidate says of it; nothing for the study's own.
    """

    name: str
    values: tuple[Value, ...]
    changes: tuple[Mapping[str, Any], ...]


def joint_choices(study: Study, network: nn.Module) -> tuple[JointChoice, ...]:
    """List what else than ratios varies in a study; nothing where it has no joint space.

    With `space.joint.auto`, what isn't listed varies over: the schemes `full`, `norm` (where the
    network normalises), `bias` and `last`; the batch whole, halved and quartered; images of three
    quarters and half the side (where the network runs on them); checkpointing by block (where the
    network has blocks).

    Args:
        study: the resolved study.
        network: unpruned; on images of the study's size it runs.

    Raises:
        NetworkError: the network can't run on images of a size that is listed.
    """
    joint = study.space.joint
    if joint is None:
        return ()
    listed = {name: tuple(getattr(joint, name)) for name in _DIMENSIONS}
    for size in listed["image_size"]:
        if (trouble := cannot_run(network, size)) is not None:
            raise NetworkError(
                f"space.joint.image_size holds {size}, on which {study.network.name!r} can't run "
                f"({trouble}): take it out"
            )
    if joint.auto:
        usual = _usual(study, network)
        listed = {name: values or usual.get(name, ()) for name, values in listed.items()}
    choices = [_choice(study, name, values) for name, values in listed.items()]
    return tuple(one for one in choices if len(one.values) > 1)


def _usual(study: Study, network: nn.Module) -> dict[str, tuple[Value, ...]]:
    normalises = any(isinstance(module, NORMALISATION) for module in network.modules())
    batch, side = study.training.batch_size, study.data.image_size
    sides = [int(side * share) // _IMAGE_MULTIPLE * _IMAGE_MULTIPLE for share in _SMALLER]
    return {
        "scheme": ("full", *(("norm",) if normalises else ()), "bias", "last"),
        "batch_size": tuple(
            batch // parts for parts in _PARTS if batch % parts == 0 and batch // parts > 1
        ),
        "image_size": tuple(
            size
            for size in dict.fromkeys(sides)
            if _IMAGE_MULTIPLE <= size < side and cannot_run(network, size) is None
        ),
        "checkpointing": ("none", "blocks") if _has_blocks(network) else (),
    }


def _choice(study: Study, name: str, values: tuple[Value, ...]) -> JointChoice:
    own = getattr(getattr(study, _DIMENSIONS[name]), name)
    every = (own, *(value for value in values if value != own))
    return JointChoice(name, every, tuple(dict(_changes(study, name, own, v)) for v in every))


def _changes(study: Study, name: str, own: Value, value: Value) -> Iterator[tuple[str, Any]]:
    if value == own:
        return
    yield name, value
    if name == "batch_size":  # the optimizer still sees the study's own batch
        yield "accumulate", study.training.accumulate * int(own) // int(value)


def _has_blocks(network: nn.Module) -> bool:
    try:
        block_names(network)
    except NetworkError:
        return False
    return True


def cannot_run(network: nn.Module, size: int) -> str | None:
    """Say why a network can't run on images of a size; None if it can."""
    try:
        with evaluating(network), torch.no_grad():
            network(example_input(1, size))
    except Exception as error:  # noqa: BLE001  # a network's own code may raise anything
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return None
