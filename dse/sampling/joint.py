"""The joint space: the dimensions of the fine-tuning recipe that vary along with the ratios."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dse.config import Range, Study
from dse.errors import ConfigError, NetworkError
from dse.inputs import InputSpec
from dse.networks.exported_library import exported_input
from dse.networks.forward import evaluating
from dse.sampling.updates import scheme_features, usual_schemes
from dse.step.checkpointing import block_names
from dse.step.optimizers import OPTIMIZERS
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


_RATE_SPAN = 4.0  # usual range of learning rates: the study's divided and multiplied by this
_OWN_LENGTH = 1.0
_SAME_ACCURACY = ("engine", "checkpointing")  # they change where gradients are held, not gradients


@dataclass(frozen=True)
class JointChoice:
    """One dimension of a recipe.

    Attributes:
        name: Name of the setting that varies, such as `scheme`.
        values: Its possible values, with the study's own first.
        changes: For each value, the candidate fields that it sets. Empty for the study's own.
        features: For each value, numbers that describe it to a surrogate, all zeros for the study's
            own; None for the logarithm of numbers, and one-hot for others.
        gone: For each value, the channel groups that the network lacks; empty if it lacks none.
    """

    name: str
    values: tuple[Value, ...]
    changes: tuple[Mapping[str, Any], ...]
    features: tuple[tuple[float, ...], ...] | None = None
    gone: tuple[frozenset[str], ...] = ()


@dataclass(frozen=True)
class JointRange:
    """A dimension of a recipe that takes every value between two, and changes no memory.

    Attributes:
        name: Candidate field, `learning_rate` or `length`.
        low: Lowest value.
        high: Highest value.
        own: The study's own value, between them. Learning rates of other optimizers are converted:
            a recipe's own rate times value / own.
    """

    name: str
    low: float
    high: float
    own: float


def joint_ranges(study: Study) -> tuple[JointRange, ...]:
    """List the dimensions of a study's joint space that vary continuously.

    With `space.joint.auto`, the learning rate varies between a quarter and four times the study's
    if it isn't listed.

    Args:
        study: The resolved study.
    """
    joint = study.space.joint
    if joint is None:
        return ()
    found = []
    own = study.training.learning_rate
    rates = joint.learning_rate
    if isinstance(rates, Range):
        low, high = min(rates.low, own), max(rates.high, own)
        found.append(JointRange("learning_rate", low, high, own))
    elif joint.auto and not rates:
        found.append(JointRange("learning_rate", own / _RATE_SPAN, own * _RATE_SPAN, own))
    if joint.length is not None:
        low, high = min(joint.length.low, _OWN_LENGTH), max(joint.length.high, _OWN_LENGTH)
        found.append(JointRange("length", low, high, _OWN_LENGTH))
    return tuple(found)


def joint_choices(
    study: Study,
    network: nn.Module,
    *,
    example: Tensor | None = None,
    takes_plans: Callable[[], bool] = lambda: True,
) -> tuple[JointChoice, ...]:
    """List the dimensions of a study's joint space that have single values; perhaps none.

    With `space.joint.auto`, dimensions that the study does not list get these values: what
    `usual_schemes` returns; the batch size, its half and its quarter; the image size, three
    quarters and half of it (if the network runs on them); checkpointing by block (if the network
    has blocks); the engines `stock`, `lean` and, if it can be planned, `lean:least`; and the
    study's optimizer and SGD with momentum and without. `space.joint.fixed_images` leaves batch and
    image size out.

    Args:
        study: The resolved study.
        network: The unpruned network. It runs on images of the study's size.
        example: An input of the network; None for square images of that size.
        takes_plans: Returns whether the engine `lean:least` can plan the network's step; called
            only where that engine would vary.

    Raises:
        NetworkError: If the network can't run on images of a listed size, or the data can't be
            resized to it.
        ConfigError: If an engine doesn't go with the study's precision.
    """
    joint = study.space.joint
    if joint is None:
        return ()
    listed: dict[str, tuple[Value, ...]] = {
        name: tuple(getattr(joint, name)) for name in _DIMENSIONS if name != "learning_rate"
    }
    listed["learning_rate"] = joint.listed_rates
    _check_listed(study, network, listed)
    if joint.auto:
        usual = _usual(study, network, takes_plans)
        listed = {name: values or usual.get(name, ()) for name, values in listed.items()}
    if example is None:
        channels = study.data.image_shape[0]
        example = InputSpec.image(study.data.image_size, channels=channels).example(2)
    choices = [_choice(study, network, name, listed[name], example) for name in _DIMENSIONS]
    return tuple(one for one in choices if len(one.values) > 1)


def _check_listed(
    study: Study, network: nn.Module, listed: Mapping[str, tuple[Value, ...]]
) -> None:
    channels = study.data.image_shape[0]
    if listed["image_size"] and not study.data.resizable:
        why = f"data.input is {list(study.data.input or ())}"
        if study.data.input is None:
            why = "data.transforms give them a size"
        raise NetworkError(
            f"space.joint.image_size needs square images of any size, and {why}: take it out"
        )
    for size in listed["image_size"]:
        if (trouble := cannot_run(network, int(size), channels=channels)) is not None:
            raise NetworkError(
                f"space.joint.image_size holds {size}, on which {study.network.name!r} can't run "
                f"({trouble}): take it out"
            )
    if study.training.precision != "float32" and set(listed["engine"]) - {"stock"}:
        raise ConfigError(
            f"space.joint.engine: a lean network does not run under autocast: set "
            f'training.precision to "float32", not "{study.training.precision}", or take lean out'
        )


def _usual(
    study: Study, network: nn.Module, takes_plans: Callable[[], bool]
) -> dict[str, tuple[Value, ...]]:
    batch = study.training.batch_size
    found: dict[str, tuple[Value, ...]] = {
        "scheme": usual_schemes(network, own=study.training.scheme),
        "checkpointing": ("none", "blocks") if _has_blocks(network) else (),
        "optimizer": tuple(name for name in ("sgd-momentum", "sgd") if _has_usual_rate(study)),
    }
    joint = study.space.joint
    if study.training.precision == "float32" and joint is not None and not joint.engine:
        found["engine"] = ("stock", "lean", *(["lean:least"] if takes_plans() else []))
    if joint is not None and joint.fixed_images:
        return found
    found["batch_size"] = tuple(batch // parts for parts in equal_parts(batch, _PARTS))
    found["image_size"] = tuple(
        size
        for size in smaller_sizes(study.data.image_size, _SMALLER)
        if study.data.resizable
        and cannot_run(network, size, channels=study.data.image_shape[0]) is None
    )
    return found


def _has_usual_rate(study: Study) -> bool:
    """Whether the rate of the study's optimizer can be converted to others."""
    return OPTIMIZERS[study.training.optimizer].usual_rate is not None


def _choice(
    study: Study, network: nn.Module, name: str, values: tuple[Value, ...], example: Tensor
) -> JointChoice:
    own = getattr(getattr(study, _DIMENSIONS[name]), name)
    every = (own, *(value for value in values if value != own))
    changes = tuple(dict(_changes(study, name, own, value)) for value in every)
    features: tuple[tuple[float, ...], ...] | None = None
    if name in _SAME_ACCURACY:
        features = ((),) * len(every)
    elif name == "scheme" and len(every) > 1:
        features = scheme_features([str(value) for value in every], network, example)
        if not features[0]:
            features = None
    return JointChoice(name, every, changes, features)


def _changes(study: Study, name: str, own: Value, value: Value) -> Iterator[tuple[str, Any]]:
    if value == own:
        return
    yield name, value
    if name == "batch_size":  # accumulate, so that the optimizer's batch stays the study's
        yield "accumulate", study.training.accumulate * int(own) // int(value)
    joint = study.space.joint
    listed = joint is not None and joint.listed_rates
    if name == "optimizer" and not listed:
        before, after = (OPTIMIZERS[str(one)].usual_rate for one in (own, value))
        if before is None or after is None:
            return
        rate = rounded(study.training.learning_rate * after / before)
        if rate != study.training.learning_rate:
            yield "learning_rate", rate


def rounded(value: float) -> float:
    """Round to three significant digits, as candidates are written."""
    return float(f"{value:.3g}")


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
    own = exported_input(network)
    if own is not None and own != InputSpec.image(size, channels=channels):
        return f"it was exported for samples of {own.text}"
    try:
        with evaluating(network), torch.no_grad():
            network(InputSpec.image(size, channels=channels).example(1))
    except USER_ERRORS as error:
        return described(error)
    return None
