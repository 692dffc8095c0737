"""Checks up front whether a study's weights are available."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import torch
import torchvision

from dse.config import Study
from dse.errors import NetworkError
from dse.networks.build import build_network
from dse.weight_files import is_weights_file

ANY_CLASSES = 2  # used if only the data determine the number of classes


def check_weights(study: Study, classes: int | None) -> Iterator[str]:
    """Check the name or file of the weights, and yield what the run will do to get them.

    Raises:
        NetworkError: if the file is missing or doesn't fit, or torchvision has no such weights.
    """
    network = study.network
    if network.weights == "pretrain":
        yield "the network will be pretrained on the source labels, unless its weights are cached"
    elif is_weights_file(network.weights):
        lines: list[str] = []
        build_network(
            network.name,
            classes=classes or ANY_CLASSES,
            weights=network.weights,
            options=network.options,
            search_path=study.source_dir,
            on_message=lines.append,
        )
        yield from lines
    elif network.weights != "none":
        name = network.name.removeprefix("torchvision:")
        if name == network.name:
            raise NetworkError(
                f"network.weights = {network.weights!r}: only torchvision's networks have named "
                "weights; give a file of weights, or 'none'"
            )
        if name not in torchvision.models.list_models(module=torchvision.models):
            return  # building the network raises the error, which suggests the nearest name
        known = torchvision.models.get_model_weights(name).__members__
        if network.weights not in known:
            raise NetworkError(
                f"network.weights = {network.weights!r}: {network.name} has none of that name; "
                f"use 'none', a file of weights or one of {', '.join(known)}"
            )
        file = Path(urlparse(known[network.weights].url).path).name
        if not (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file():
            yield f"weights {network.weights!r} will be downloaded ({file})"
