"""Build networks by name: torchvision models, or what a user's own factory returns."""

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from dse.errors import NetworkError
from dse.factories import importable, load_factory
from dse.names import nearest
from dse.networks.checkpoints import match, read_weights
from dse.networks.fixed import fixed_parameters
from dse.networks.head import replace_head
from dse.user_code import USER_ERRORS, described
from dse.weight_files import SUFFIXES, is_weights_file

NO_WEIGHTS = "none"
TORCHVISION = "torchvision:"
HAS_AUXILIARY_HEADS = ("googlenet", "inception_v3")
AUXILIARY_PREFIXES = ("aux1.", "aux2.", "AuxLogits.")

_LOG = logging.getLogger(__name__)


def example_input(
    batch_size: int, image_size: int, *, channels: int = 3, device: str = "cpu"
) -> Tensor:
    """Return zeros of shape (batch_size, channels, image_size, image_size)."""
    return torch.zeros(batch_size, channels, image_size, image_size, device=device)


def build_network(
    name: str,
    *,
    classes: int,
    weights: str = NO_WEIGHTS,
    options: Mapping[str, Any] | None = None,
    search_path: Path | None = None,
    on_message: Callable[[str], None] | None = None,
) -> nn.Module:
    """Build a classifier.

    Parameters that a factory freezes (``requires_grad=False``) are remembered
    (see ``fixed_parameters``).

    Args:
        name: ``torchvision:NAME`` or ``package.module:factory``. A factory is called with
            ``num_classes`` and the options.
        classes: Number of outputs.
        weights: ``none``; the path of a file of the network's weights (see
            ``match``); or, for torchvision, the name of weights such as
            ``DEFAULT`` or ``IMAGENET1K_V1``. If they have another number of outputs, the
            classifier is left new.
        options: Keyword arguments for the factory.
        search_path: Folder that is searched first for the factory's module.
        on_message: Called with one line on what was loaded from a file. If None, it is logged.

    Raises:
        NetworkError: If the network or its weights can't be found, built, downloaded or read.
    """
    options = dict(options or {})
    for taken in ("num_classes", "weights"):
        if taken in options:
            raise NetworkError(
                f"network {name!r}: the option {taken!r} is set by the study itself; leave it out"
            )
    if is_weights_file(weights):
        return _from_file(
            name,
            Path(weights),
            classes=classes,
            options=options,
            search_path=search_path,
            on_message=on_message or _LOG.info,
        )
    if name.startswith(TORCHVISION):
        return _torchvision(name.removeprefix(TORCHVISION), classes, weights, options)
    if weights != NO_WEIGHTS:
        raise NetworkError(
            f"weights {weights!r} aren't available for {name!r}: give a file of weights "
            f"({', '.join(SUFFIXES)}), or 'none'"
        )
    factory = load_factory(
        name, search_path=search_path, place=f"network {name!r}", error=NetworkError
    )
    with importable(search_path):  # a factory may import modules when it is called
        return _call(name, factory, {"num_classes": classes, **options})


def load_tensors(network: nn.Module, path: Path) -> None:
    """Load a safetensors file whose names and shapes match the network's exactly.

    Raises:
        NetworkError: If the file is missing or damaged, or its tensors do not match the network.
    """
    tensors, _ = read_weights(path)
    _load(network, tensors, source=str(path))


def _torchvision(name: str, classes: int, weights: str, options: dict[str, Any]) -> nn.Module:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise NetworkError(
            f"torchvision has no classifier {name!r}{_nearest(name, known)}; "
            f"it has {len(known)}, see torchvision.models"
        )
    if name in HAS_AUXILIARY_HEADS:
        if options.get("aux_logits"):
            raise NetworkError(
                f"{TORCHVISION}{name}: aux_logits=true isn't supported; leave it out"
            )
        options = {"aux_logits": False, "init_weights": False, **options}
    factory = torchvision.models.get_model_builder(name)
    if weights == NO_WEIGHTS:
        return _call(f"{TORCHVISION}{name}", factory, {"num_classes": classes, **options})
    enum = torchvision.models.get_model_weights(name)
    if weights not in enum.__members__:
        names = list(enum.__members__)
        raise NetworkError(
            f"{TORCHVISION}{name} has no weights {weights!r}{_nearest(weights, names)}; "
            f"use 'none', a file of weights or one of {', '.join(names)}"
        )
    if name in HAS_AUXILIARY_HEADS:
        # With weights, torchvision decides itself whether to build auxiliary heads. They are
        # dropped below.
        options = {k: v for k, v in options.items() if k not in ("aux_logits", "init_weights")}
    chosen = enum[weights]
    try:
        network = _call(f"{TORCHVISION}{name}", factory, {"weights": chosen, **options})
    except NetworkError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError):  # the base of urllib's and of the socket's errors
            raise
        raise NetworkError(
            f"weights {weights!r} of {TORCHVISION}{name} can't be downloaded ({cause}); put the "
            f"file of {chosen.url} into {torch.hub.get_dir()}/checkpoints, or give its path"
        ) from cause
    _drop_auxiliary_heads(network)
    (crop,) = chosen.transforms().crop_size  # vision transformers accept only this image size
    if len(chosen.meta["categories"]) != classes:
        replace_head(network, example_input(1, crop), classes=classes)
    return network


def _drop_auxiliary_heads(network: nn.Module) -> None:
    for head in ("aux1", "aux2", "AuxLogits"):
        if hasattr(network, head):
            network.aux_logits = False  # type: ignore[assignment]
            setattr(network, head, None)


def _from_file(
    name: str,
    path: Path,
    *,
    classes: int,
    options: dict[str, Any],
    search_path: Path | None,
    on_message: Callable[[str], None],
) -> nn.Module:
    """Build the network with ``classes`` outputs and load every matching tensor of the file.

    The classifier keeps its initial values if the file has none, or one of another size. As the
    factory builds it, code that depends on the number of classes (such as a reshape) stays correct.
    """
    tensors, notes = read_weights(path)
    network = build_network(name, classes=classes, options=options, search_path=search_path)
    with torch.random.fork_rng(devices=[]):
        other = build_network(name, classes=classes + 1, options=options, search_path=search_path)
    shapes = {key: tensor.shape for key, tensor in other.state_dict().items()}
    own = network.state_dict()
    head = frozenset(key for key, tensor in own.items() if shapes.get(key) != tensor.shape)
    known = name.removeprefix(TORCHVISION)
    matched = match(
        tensors,
        network,
        head=head,
        source=str(path),
        optional=AUXILIARY_PREFIXES if known in HAS_AUXILIARY_HEADS else (),
    )
    network.load_state_dict(own | matched.tensors)
    on_message(replace(matched, notes=(*notes, *matched.notes)).line(path))
    return network


def _load(network: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    own = network.state_dict()
    for name, tensor in own.items():
        if name not in tensors:
            raise NetworkError(f"{source} lacks the tensor {name!r} of {type(network).__name__}")
        if tensors[name].shape != tensor.shape:
            raise NetworkError(
                f"{source}: {name!r} has shape {tuple(tensors[name].shape)}, "
                f"but {type(network).__name__} needs {tuple(tensor.shape)}"
            )
    for name in tensors:
        if name not in own:
            raise NetworkError(f"{source}: {type(network).__name__} has no tensor {name!r}")
    network.load_state_dict(tensors)


def _call(name: str, factory: Callable[..., object], arguments: dict[str, Any]) -> nn.Module:
    try:
        inspect.signature(factory).bind(**arguments)
        network = factory(**arguments)
    except USER_ERRORS as error:  # a factory may do anything
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        hint = _contract(error) if isinstance(error, TypeError) else ""
        raise NetworkError(
            f"network {name!r} can't be built with {given}: {described(error)}{hint}"
        ) from error
    if not isinstance(network, nn.Module):
        raise NetworkError(
            f"network {name!r}: the factory returned {type(network).__name__!r}, "
            "not a torch.nn.Module"
        )
    fixed_parameters(network)
    return network


def _contract(error: TypeError) -> str:
    """What a factory must take, where it doesn't take the number of classes."""
    if "num_classes" not in str(error):
        return ""
    return "; a factory is called with num_classes=... and network.options: let it take them"


def _nearest(name: str, known: list[str]) -> str:
    close = nearest(name, known)
    return f", did you mean {close!r}?" if close else ""
