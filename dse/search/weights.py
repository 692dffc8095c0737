"""Whether a study's weights can be had, before anything else is done."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import torch
import torchvision

from dse.config import Study
from dse.errors import NetworkError
from dse.networks.build import build_network
from dse.weight_files import is_weights_file

ANY_CLASSES = 2  # where only the data tell how many there are


def check_weights(study: Study, classes: int | None) -> Iterator[str]:
    """Check the weights' name or file, and say what the run will do for them.

    Raises:
        NetworkError: there is no such file, it doesn't fit, or torchvision has no such weights.
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
            return  # building the network says so, with the nearest name
        known = torchvision.models.get_model_weights(name).__members__
        if network.weights not in known:
            raise NetworkError(
                f"network.weights = {network.weights!r}: {network.name} has none of that name; "
                f"use 'none', a file of weights or one of {', '.join(known)}"
            )
        file = Path(urlparse(known[network.weights].url).path).name
        if not (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file():
            yield f"weights {network.weights!r} will be downloaded ({file})"
