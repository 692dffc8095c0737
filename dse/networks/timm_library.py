"""Classifiers of timm."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn

from dse.errors import NetworkError
from dse.networks.calls import call, did_you_mean
from dse.networks.hub import cached, quick_failure
from dse.networks.library import (
    DEFAULT_WEIGHTS,
    NO_WEIGHTS,
    Library,
    Wanted,
    downloading,
    imported,
)

_FILES = ("model.safetensors", "pytorch_model.bin")


def _build(wanted: Wanted) -> nn.Module:
    timm = imported("timm", title=wanted.title)
    _check_name(timm, wanted)
    if wanted.outputs == "maps":
        raise NetworkError(
            f"network {wanted.title!r} is a classifier: for segmentation use one of torchvision's "
            "or transformers' networks, or write a factory"
        )
    loads = wanted.weights != NO_WEIGHTS
    arguments = {**wanted.options, "num_classes": wanted.classes}
    given = {"model_name": wanted.name, "pretrained": loads, **arguments}
    if not loads:
        return call(wanted.title, timm.create_model, given, shown=arguments)
    trained = _config(timm, wanted).num_classes
    place = "on a machine with a network run the study once, or give a file of weights"
    hub = imported("huggingface_hub", title=wanted.title)
    with downloading(wanted, place=place), quick_failure(hub.constants):
        network = call(wanted.title, timm.create_model, given, shown=arguments)
    wanted.state_classes(trained)
    return network


def _check_name(timm: Any, wanted: Wanted) -> None:
    """Raise an error if timm has no such classifier, or no weights of that tag."""
    base, tag = timm.models.split_model_name_tag(wanted.name)
    known = timm.list_models()
    if base not in known:
        raise NetworkError(
            f"timm has no classifier {base!r}{did_you_mean(base, known)}; "
            f"it has {len(known)}, see timm.list_models()"
        )
    tags = timm.list_pretrained(f"{base}.*")
    if tag and wanted.name not in tags:
        names = [one.partition(".")[2] for one in tags]
        raise NetworkError(
            f"{wanted.title}: timm has no weights {tag!r} of {base}{did_you_mean(tag, names)}; "
            + (f"it has {', '.join(names)}" if names else f"it has none: write timm:{base}")
        )


def _config(timm: Any, wanted: Wanted) -> Any:
    """Return timm's description of the weights.

    Raises:
        NetworkError: If timm has no weights for this network, or none of that name.
    """
    if wanted.weights != DEFAULT_WEIGHTS:
        raise NetworkError(
            f"weights {wanted.weights!r} aren't available for {wanted.title!r}: use 'default' "
            "(a tag after the name chooses others), a file of weights, or 'none'"
        )
    config = timm.models.get_pretrained_cfg(wanted.name, allow_unregistered=True)
    if config is None or not config.has_weights:
        raise NetworkError(
            f"timm has no weights of {wanted.title!r}: use a file of weights, or 'none'"
        )
    return config


def _check_weights(wanted: Wanted) -> Iterator[str]:
    timm = imported("timm", title=wanted.title)
    _check_name(timm, wanted)
    config = _config(timm, wanted)
    if config.hf_hub_id:
        hub = imported("huggingface_hub", title=wanted.title)
        if cached(hub, config.hf_hub_id, _FILES) is None:
            yield f"weights {wanted.weights!r} will be downloaded ({config.hf_hub_id})"
    elif config.url:
        file = Path(urlparse(config.url).path).name
        if not (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file():
            yield f"weights {wanted.weights!r} will be downloaded ({file})"


LIBRARY = Library(
    build=_build,
    check_weights=_check_weights,
    reserved=(
        "num_classes",
        "weights",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "checkpoint_path",
        "model_name",
    ),
)
