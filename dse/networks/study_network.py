"""Build a study's network without weights, for its channel groups and its memory."""

import torch
from torch import nn

from dse.config import Study
from dse.errors import NetworkError
from dse.networks.build import build_network, example_input
from dse.networks.forward import evaluating


def network_without_weights(study: Study, *, classes: int) -> nn.Module:
    """Build a study's network without weights, which its groups and memory don't depend on.

    Raises:
        NetworkError: If the network can't be built, can't run on the study's images, or has a
            number of outputs other than ``classes``.
    """
    with torch.random.fork_rng(devices=[]):
        network = build_network(
            study.network.name,
            classes=classes,
            options=study.network.options,
            search_path=study.source_dir,
        )
        _try(study, network, classes=classes)
    return network


def _try(study: Study, network: nn.Module, *, classes: int) -> None:
    """Run a network on one image, so that errors name the setting that causes them."""
    name, size = study.network.name, study.data.image_size
    try:
        with evaluating(network), torch.no_grad():
            output = network(example_input(1, size))
    except Exception as error:  # a network's own code may raise anything
        said = str(error).strip().partition("\n")[0]
        raise NetworkError(
            f"network.name = {name!r} can't run on an image of shape (1, 3, {size}, {size}): "
            f"{type(error).__name__}: {said}; mend it, or change data.image_size"
        ) from error
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if shape != (1, classes):
        raise NetworkError(
            f"network.name = {name!r} gives {shape} for one image, not (1, {classes}): its "
            f"factory must build one output for each of the num_classes={classes} it is given"
        )
