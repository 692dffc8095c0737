"""Build networks by name: those of libraries, or what a user's own factory returns."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dse.errors import NetworkError
from dse.factories import importable, load_factory
from dse.inputs import InputSpec
from dse.names import Outputs
from dse.networks.calls import call
from dse.networks.checkpoints import match, read_weights
from dse.networks.library import NO_WEIGHTS, Wanted, find_library
from dse.networks.several_inputs import adapted
from dse.networks.torchvision_library import AUXILIARY_PREFIXES, HAS_AUXILIARY_HEADS
from dse.weight_files import SUFFIXES, is_weights_file

_LOG = logging.getLogger(__name__)
_RESERVED = ("num_classes", "weights")
_WITH_AUXILIARY = tuple(f"torchvision:{name}" for name in HAS_AUXILIARY_HEADS)


def build_network(
    name: str,
    *,
    classes: int,
    weights: str = NO_WEIGHTS,
    options: Mapping[str, Any] | None = None,
    search_path: Path | None = None,
    on_message: Callable[[str], None] | None = None,
    inputs: InputSpec | None = None,
    outputs: Outputs = "vector",
) -> nn.Module:
    """Build a network with a number of outputs.

    Parameters that a factory freezes (``requires_grad=False``) are remembered
    (see ``fixed_parameters``).

    Args:
        name: As in ``dse.names.NETWORKS``. A factory is called with ``num_classes`` and the
            options.
        classes: Number of outputs.
        weights: ``none``; the path of a file of the network's weights (see
            ``match``); or, of a library, ``default`` or the name of its weights, such as
            torchvision's ``IMAGENET1K_V1``. If they have another number of outputs, the
            classifier is left new.
        options: Keyword arguments for the factory.
        search_path: Folder that is searched first for the factory's module, and that a relative
            folder of a network starts at.
        on_message: Called with one line on what was loaded. If None, it is logged.
        inputs: Shape and type of one sample. A network of several inputs is wrapped, so that it
            takes one tensor (see ``SeveralInputs``).
        outputs: Whether the outputs are a vector for each sample, or maps of its size.

    Raises:
        NetworkError: If the network or its weights can't be found, built, downloaded or read.
    """
    if inputs is not None and inputs.names:
        built = build_network(
            name,
            classes=classes,
            weights=weights,
            options=options,
            search_path=search_path,
            on_message=on_message,
            outputs=outputs,
        )
        return adapted(built, inputs)
    options = dict(options or {})
    library = find_library(name)
    for taken in _RESERVED if library is None else library.reserved:
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
            inputs=inputs,
            outputs=outputs,
        )
    if library is not None:
        return library.build(
            Wanted(
                title=name,
                name=name.partition(":")[2],
                classes=classes,
                outputs=outputs,
                weights=weights,
                options=options,
                folder=search_path,
                inputs=inputs,
                on_message=on_message or _LOG.info,
            )
        )
    if weights != NO_WEIGHTS:
        raise NetworkError(
            f"weights {weights!r} aren't available for {name!r}: give a file of weights "
            f"({', '.join(SUFFIXES)}), or 'none'"
        )
    factory = load_factory(
        name, search_path=search_path, place=f"network {name!r}", error=NetworkError
    )
    with importable(search_path):  # a factory may import modules when it is called
        return call(name, factory, {"num_classes": classes, **options})


def load_tensors(network: nn.Module, path: Path) -> None:
    """Load a safetensors file whose names and shapes match the network's exactly.

    Raises:
        NetworkError: If the file is missing or damaged, or its tensors do not match the network.
    """
    tensors, _ = read_weights(path)
    _load(network, tensors, source=str(path))


def _from_file(
    name: str,
    path: Path,
    *,
    classes: int,
    options: dict[str, Any],
    search_path: Path | None,
    on_message: Callable[[str], None],
    inputs: InputSpec | None,
    outputs: Outputs,
) -> nn.Module:
    """Build the network with ``classes`` outputs and load every matching tensor of the file.

    The classifier keeps its initial values if the file has none, or one of another size. As the
    factory builds it, code that depends on the number of classes (such as a reshape) stays correct.
    """
    tensors, notes = read_weights(path)

    def built(count: int) -> nn.Module:
        return build_network(
            name,
            classes=count,
            options=options,
            search_path=search_path,
            inputs=inputs,
            outputs=outputs,
        )

    network = built(classes)
    with torch.random.fork_rng(devices=[]):
        other = built(classes + 1)
    shapes = {key: tensor.shape for key, tensor in other.state_dict().items()}
    own = network.state_dict()
    head = frozenset(key for key, tensor in own.items() if shapes.get(key) != tensor.shape)
    matched = match(
        tensors,
        network,
        head=head,
        source=str(path),
        optional=AUXILIARY_PREFIXES if name.endswith(_WITH_AUXILIARY) else (),
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
