"""Whether a network can be studied at all: it runs on the images and gives one output per class."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from dse.errors import NetworkError, PruningError
from dse.inputs import InputSpec
from dse.names import Outputs
from dse.networks.copies import copied
from dse.networks.examples import example_input
from dse.networks.fixed import fixed_line
from dse.networks.forward import evaluating, tensors_in
from dse.networks.logits import main_logits, unscored
from dse.user_code import USER_ERRORS, described, failed_module, is_out_of_memory

IMAGE_CHANNELS = 3  # of images, unless a study says otherwise
_CHANNELS_OF_FILES = (1, 3)  # that images can be read with
_IMAGE_BATCH = 4  # dimensions
_VECTOR_BATCH = 2


def check_network(
    network: nn.Module,
    *,
    title: str,
    size_key: str,
    inputs: InputSpec,
    classes: int,
    outputs: Outputs = "vector",
) -> None:
    """Run a network once on an example, so that an error names it and says what to change.

    Args:
        network: The network. Only its own forward pass may change it.
        title: Name of the network in messages.
        size_key: Setting that gives the size of the input.
        inputs: Shape and type of one sample.
        classes: Required number of outputs.
        outputs: Whether these are a vector for a sample, or maps.

    Raises:
        NetworkError: If it can't run on such an image, its parameters have mixed or half precision,
            or it has other outputs.
    """
    image = inputs.example(1)
    shape = tuple(image.shape)
    try:
        with evaluating(network), torch.no_grad(), torch.random.fork_rng(devices=[]):
            output = network(image)
    except USER_ERRORS as error:
        if is_out_of_memory(error):
            raise NetworkError(
                f"{title} needs more memory for {_noun(inputs)} of shape {shape} than this machine "
                f"has free ({described(error)}); lower {size_key}"
            ) from error
        module = failed_module(network, error)
        place = f" at {module!r}" if module else ""
        fix = _fix(network, image, module, size_key=size_key)
        raise NetworkError(
            f"{title} can't run on {_noun(inputs)} of shape {shape}{place}: {described(error)}; "
            f"{fix}"
        ) from error
    given = main_logits(output) if any(True for _ in tensors_in(output)) else None
    dimensions = _IMAGE_BATCH if outputs == "maps" else _VECTOR_BATCH
    if given is None or given.ndim != dimensions or tuple(given.shape[:2]) != (1, classes):
        kind = type(output).__name__ if given is None else tuple(given.shape)
        wanted = f"(1, {classes}{', height, width' if outputs == 'maps' else ''})"
        raise NetworkError(
            f"{title} gives {kind} for one sample, not {wanted}: its factory must build one "
            f"{'map' if outputs == 'maps' else 'output'} for each of the num_classes={classes} it "
            "is given"
        )


def _noun(inputs: InputSpec) -> str:
    return "an image" if inputs.is_image else "an input"


def check_prunable(network: nn.Module) -> None:
    """Reject networks whose layers have no channels yet.

    Raises:
        PruningError: If the network has lazy layers.
    """
    for name, module in network.named_modules():
        if any(nn.parameter.is_lazy(p) for p in module.parameters(recurse=False)):
            raise PruningError(f"{name}: a lazy layer has no channels yet; run the network once")


def network_notes(network: nn.Module, image: Tensor) -> Iterator[str]:
    """Yield a line for each part of a network that is treated in a way its author may not expect.

    Args:
        network: A network that has been checked. It is not changed.
        image: (any batch, channels, height, width).
    """
    if (line := fixed_line(network)) is not None:
        yield line
    pair = image[:1].expand(2, *image.shape[1:]).clone()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            training = copied(network)
            training.train()
            outputs = training(pair)
        except USER_ERRORS:
            return  # reported where the network is trained
    if others := unscored(outputs):
        shapes = ", ".join(f"(batch, {', '.join(map(str, each.shape[1:]))})" for each in others)
        logits = ", ".join(map(str, main_logits(outputs).shape[1:]))
        yield (
            f"while it trains, the network returns {shapes} beside the (batch, {logits}) logits; "
            "only logits are scored"
        )


def image_channels(network: nn.Module, image_size: int) -> int:
    """How many channels a network's images have: those that its first convolution takes.

    Returns:
        3 wherever the network runs on such images, or its first layer doesn't tell.
    """
    first = _first_convolution(network, example_input(1, image_size))
    return IMAGE_CHANNELS if first is None else int(first[1].in_channels)


def _fix(network: nn.Module, image: Tensor, module: str | None, *, size_key: str) -> str:
    """Suggest what the user can change about a network that does not run."""
    first = _first_convolution(network, image)
    if first is not None and first[0] == module:
        given, taken = image.shape[1], first[1].in_channels
        if image.ndim == _IMAGE_BATCH and taken in _CHANNELS_OF_FILES:
            shape = [taken, *image.shape[2:]]
            return (
                f"images have {given} channels, but its first layer {first[0]!r} takes {taken}: "
                f"set data.input = {shape}, or build it for {given}"
            )
        return (
            f"samples have {given} channels, but its first layer {first[0]!r} takes {taken}: build "
            f"it for {given}, or give samples of {taken} channels by a data factory"
        )
    kinds = {p.dtype for p in network.parameters() if p.is_floating_point()}
    if kinds - {torch.float32}:
        names = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        return f"its parameters are {names}: end the factory with network.float()"
    return f"change its code, or {size_key}"


def _first_convolution(network: nn.Module, image: Tensor) -> tuple[str, _ConvNd] | None:
    """The first convolution that runs, where it gets the image and takes other channels than it."""
    met: list[tuple[str, _ConvNd, object]] = []

    def note(name: str, module: nn.Module, inputs: tuple[object, ...]) -> None:
        if isinstance(module, _ConvNd):
            met.append((name, module, inputs[0] if inputs else None))

    with ExitStack() as stack:
        for name, module in network.named_modules():
            hook = module.register_forward_pre_hook(
                lambda module, inputs, name=name: note(name, module, inputs)
            )
            stack.callback(hook.remove)
        stack.enter_context(evaluating(network))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(suppress(*USER_ERRORS))  # only how far it came counts here
        network(image)
    if not met:
        return None
    name, module, given = met[0]
    fits = isinstance(given, Tensor) and given.shape == image.shape
    return (name, module) if fits and module.in_channels != image.shape[1] else None
