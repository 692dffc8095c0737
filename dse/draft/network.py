"""Finds the weights, image size and normalisation of a network to draft a study for."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torchvision

from dse.config import IMAGENET_MEAN, IMAGENET_STD
from dse.draft.text import KnownNetwork, written_path
from dse.errors import NetworkError
from dse.image_settings import image_settings
from dse.inputs import InputSpec
from dse.names import Outputs, either, library_of
from dse.networks.build import build_network
from dse.networks.exported_library import exported_input
from dse.networks.forward import evaluating
from dse.networks.library import Wanted, find_library
from dse.networks.logits import main_logits
from dse.user_code import USER_ERRORS, described
from dse.weight_files import is_weights_file

COMMON_SIZES = (224, 192, 160, 128, 96, 64, 48, 32, 28, 16, 12, 8, 256, 299, 384)
"""Usual sides of images, in pixels; tried in this order if nothing else is known."""


def find_network(
    name: str,
    *,
    weights: str | None,
    classes: int,
    image_size: int | None,
    sides: Sequence[int],
    folder: Path,
    outputs: Outputs,
) -> KnownNetwork:
    """Find the weights, image size and normalisation of a network.

    Args:
        name: one of `dse.names.NETWORKS`.
        weights: a file, the name of the library's weights or "none"; None means the library's best.
        classes: number of outputs.
        image_size: side of the images in pixels; None tries common sizes.
        sides: shorter sides in pixels of some images.
        folder: folder of the study.
        outputs: whether it returns a vector for each image, or maps.

    Raises:
        NetworkError: if it can't be built, or doesn't run on images of any size that is tried.
    """
    settings = image_settings(name, folder=folder)
    known = _torchvision_weights(name, weights, outputs)
    chosen, transforms = (
        known if known is not None else (_chosen(name, weights, folder, outputs), None)
    )
    size, mean, std = None, IMAGENET_MEAN, IMAGENET_STD
    if transforms is not None:
        (size,) = getattr(transforms, "crop_size", (None,))  # none for maps
        mean, std = tuple(transforms.mean), tuple(transforms.std)
        normalisation = f"the weights {chosen} were trained with these"
    elif settings is not None:
        size, mean, std = settings.image_size, settings.mean, settings.std
        normalisation = settings.origin
    else:
        normalisation = "ImageNet's; change them to what your weights were trained with"
    built = build_network(name, classes=classes, search_path=folder, outputs=outputs)
    short_side = int(median(sides))
    own = f"the median of your images' short sides is {short_side} px"
    if image_size is not None:
        tried: tuple[int, ...] = (image_size,)
        why = f"given by --image-size; {own}"
    elif (exported := exported_input(built)) is not None and exported.is_image:
        tried = (exported.shape[-1],)
        why = f"the size that it was exported for; {own}"
    elif size is not None:
        tried = (size,)
        trained = "it was trained at" if settings else f"{chosen} was trained at"
        why = f"the size that {trained}; {own}"
    else:
        fitting = sorted((one for one in COMMON_SIZES if one <= short_side), reverse=True)
        tried = (*(one for one in fitting if one <= COMMON_SIZES[0]), *COMMON_SIZES)
        why = f"the network runs on it; {own}"
    troubles: dict[int, str] = {}
    for side in dict.fromkeys(tried):
        trouble = _trouble(built, InputSpec.image(side), classes, outputs)
        if trouble is None:
            return KnownNetwork(
                weights=chosen,
                image_size=side,
                why=why,
                mean=mean,
                std=std,
                normalisation=normalisation,
                interpolation=settings.interpolation if settings else "bilinear",
                crop=settings.crop if settings else 1.0,
            )
        troubles[side] = trouble
    first = next(iter(troubles.items()))
    raise NetworkError(
        f"network {name!r} doesn't run on images of {either(map(str, troubles))} pixels "
        f"({first[0]} pixels: {first[1]}); give --image-size"
    )


def find_sample_network(
    name: str, *, weights: str | None, classes: int, inputs: InputSpec, folder: Path
) -> KnownNetwork:
    """Find the weights of a network of samples that are no images.

    Args:
        name: one of `dse.names.NETWORKS`.
        weights: a file, the name of the library's weights or "none"; None means the library's best.
        classes: number of outputs.
        inputs: shape and type of a sample.
        folder: folder of the study.

    Raises:
        NetworkError: if it can't be built, or doesn't run on such samples.
    """
    built = build_network(name, classes=classes, search_path=folder, inputs=inputs)
    if (trouble := _trouble(built, inputs, classes, "vector")) is not None:
        raise NetworkError(f"network {name!r} doesn't run on samples of {inputs.text}: {trouble}")
    return KnownNetwork(weights=_chosen(name, weights, folder, "vector"))


def _torchvision_weights(
    name: str, weights: str | None, outputs: Outputs
) -> tuple[str, Any] | None:
    """Return the name and transforms of torchvision weights; None if others, or none, are used."""
    if library_of(name) != "torchvision" or weights == "none" or is_weights_file(weights or ""):
        return None
    model = name.partition(":")[2]
    place = torchvision.models.segmentation if outputs == "maps" else torchvision.models
    if model not in torchvision.models.list_models(module=place):
        return None  # building the network says so, with the nearest name
    members = torchvision.models.get_model_weights(model).__members__
    if weights is None and not members:
        return None
    chosen = "DEFAULT" if weights in (None, "default") else str(weights)
    if chosen not in members:
        raise NetworkError(
            f"--weights {chosen}: {name} has none of that name; use none, a file or one of "
            f"{', '.join(members)}"
        )
    return chosen, members[chosen].transforms()


def _chosen(name: str, weights: str | None, folder: Path, outputs: Outputs) -> str:
    """Return the weights as the study names them: a file, or the library's where it has some."""
    if weights is not None and is_weights_file(weights):
        return written_path(Path(weights), folder)
    library = find_library(name)
    if library is None or weights == "none":
        return weights or "none"
    wanted = Wanted(
        title=name,
        name=name.partition(":")[2],
        classes=2,
        outputs=outputs,
        weights=weights or "default",
        options={},
        folder=folder,
    )
    try:
        for _line in library.check_weights(wanted):
            pass
    except NetworkError:
        if weights is not None:
            raise
        return "none"
    return wanted.weights


def _trouble(
    network: torch.nn.Module, inputs: InputSpec, classes: int, outputs: Outputs
) -> str | None:
    """Return why a network has no such outputs for samples of a shape; None if it has."""
    try:
        with evaluating(network), torch.no_grad():
            logits = main_logits(network(inputs.example(2)))
    except USER_ERRORS as error:
        return described(error)
    wanted = "(2, {0}, height, width)" if outputs == "maps" else "(2, {0})"
    dimensions = 4 if outputs == "maps" else 2
    if logits.ndim != dimensions or tuple(logits.shape[:2]) != (2, classes):
        return f"its output has shape {tuple(logits.shape)}, not {wanted.format(classes)}"
    return None
