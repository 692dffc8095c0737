"""Classifiers and networks for segmentation of torchvision."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import torch
import torchvision
from torch import nn

from dse.errors import NetworkError
from dse.networks.calls import call, did_you_mean
from dse.networks.examples import example_input
from dse.networks.head import replace_head
from dse.networks.library import DEFAULT_WEIGHTS, NO_WEIGHTS, Library, Wanted, downloading

HAS_AUXILIARY_HEADS = ("googlenet", "inception_v3")
AUXILIARY_PREFIXES = ("aux1.", "aux2.", "AuxLogits.")


def classifiers() -> list[str]:
    """Return the names of torchvision's classifiers."""
    return list(torchvision.models.list_models(module=torchvision.models))


def segmenters() -> list[str]:
    """Return the names of torchvision's networks for semantic segmentation."""
    return list(torchvision.models.list_models(module=torchvision.models.segmentation))


def weights_of(wanted: Wanted) -> torchvision.models.WeightsEnum:
    """Return the weights that a network is built with.

    Raises:
        NetworkError: If the network has no weights of that name.
    """
    enum = torchvision.models.get_model_weights(wanted.name)
    key = "DEFAULT" if wanted.weights == DEFAULT_WEIGHTS else wanted.weights
    if key not in enum.__members__:
        names = list(enum.__members__)
        raise NetworkError(
            f"{wanted.title} has no weights {wanted.weights!r}{did_you_mean(key, names)}; use "
            f"'none', a file of weights or one of {', '.join(names)}"
        )
    return enum[key]


def _build(wanted: Wanted) -> nn.Module:
    name, options = wanted.name, wanted.options
    if wanted.outputs == "maps":
        return _segmenter(wanted)
    known = classifiers()
    if name not in known:
        other = " for images as a whole" if name in segmenters() else ""
        raise NetworkError(
            f"torchvision has no classifier {name!r}{other}{did_you_mean(name, known)}; "
            f"it has {len(known)}, see torchvision.models"
        )
    if name in HAS_AUXILIARY_HEADS:
        if options.get("aux_logits"):
            raise NetworkError(f"{wanted.title}: aux_logits=true isn't supported; leave it out")
        options = {"aux_logits": False, "init_weights": False, **options}
    factory = torchvision.models.get_model_builder(name)
    if wanted.weights == NO_WEIGHTS:
        return call(wanted.title, factory, {"num_classes": wanted.classes, **options})
    chosen = weights_of(wanted)
    if name in HAS_AUXILIARY_HEADS:
        # With weights, torchvision decides itself whether to build auxiliary heads. They are
        # dropped below.
        options = {k: v for k, v in options.items() if k not in ("aux_logits", "init_weights")}
    place = f"put the file of {chosen.url} into {torch.hub.get_dir()}/checkpoints, or give its path"
    with downloading(wanted, place=place):
        network = call(wanted.title, factory, {"weights": chosen, **options})
    _drop_auxiliary_heads(network)
    (crop,) = chosen.transforms().crop_size  # vision transformers accept only this image size
    trained = len(chosen.meta["categories"])
    wanted.state_classes(trained)
    if trained != wanted.classes:
        replace_head(network, example_input(1, crop), classes=wanted.classes)
    return network


def _segmenter(wanted: Wanted) -> nn.Module:
    """Build a network for segmentation; layers of another number of classes are left new."""
    known = segmenters()
    if wanted.name not in known:
        raise NetworkError(
            f"torchvision has no network for segmentation {wanted.name!r}"
            f"{did_you_mean(wanted.name, known)}; it has {', '.join(known)}"
        )
    factory = torchvision.models.get_model_builder(wanted.name)
    # Without a word, torchvision downloads weights of the backbone.
    arguments = {
        "weights": None,
        "weights_backbone": None,
        **wanted.options,
        "num_classes": wanted.classes,
    }
    if wanted.weights == NO_WEIGHTS:
        if arguments["weights_backbone"] is None:
            return call(wanted.title, factory, arguments, shown=wanted.options)
        place = 'leave the option weights_backbone out, or take weights = "default"'
        with downloading(wanted, place=place):
            return call(wanted.title, factory, arguments, shown=wanted.options)
    chosen = weights_of(wanted)
    place = f"put the file of {chosen.url} into {torch.hub.get_dir()}/checkpoints, or give its path"
    network = call(wanted.title, factory, arguments, shown=wanted.options)
    try:
        tensors = chosen.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise NetworkError(
            f"weights {wanted.weights!r} of {wanted.title} can't be downloaded ({error}); {place}"
        ) from error
    own = network.state_dict()
    fitting = {
        key: tensor
        for key, tensor in tensors.items()
        if key in own and tensor.shape == own[key].shape
    }
    network.load_state_dict(own | fitting)
    wanted.state_classes(len(chosen.meta["categories"]))
    return network


def _drop_auxiliary_heads(network: nn.Module) -> None:
    for head in ("aux1", "aux2", "AuxLogits"):
        if hasattr(network, head):
            network.aux_logits = False  # type: ignore[assignment]
            setattr(network, head, None)


def _check_weights(wanted: Wanted) -> Iterator[str]:
    if wanted.name not in (segmenters() if wanted.outputs == "maps" else classifiers()):
        return  # building the network raises the error, which suggests the nearest name
    file = Path(urlparse(weights_of(wanted).url).path).name
    if not (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file():
        yield f"weights {wanted.weights!r} will be downloaded ({file})"


LIBRARY = Library(
    build=_build, check_weights=_check_weights, reserved=("num_classes", "weights", "pretrained")
)
