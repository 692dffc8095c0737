"""Caches the outputs of a frozen trunk, so that they are computed once instead of every epoch.

If only a tail of the network trains, such as the output layer under `last`, every epoch sends the
same images through the same frozen layers. Here the images pass through the trunk once, and the
tail trains on the stored outputs. The steps equal those of the whole network, in the same order and
with the same random numbers; only the forward pass of the trunk is saved. The memory of a step on
the device is unaffected by this and is predicted for the whole step.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from dse.data.parts import Part
from dse.errors import DataError
from dse.names import MemoryFormat
from dse.networks.forward import run
from dse.step.schemes import NORMALISATION

LARGEST_CACHE_BYTES = 2**30


def find_tail(network: nn.Module, images: Tensor) -> str | None:
    """Find the smallest module that contains all trained parameters, if the rest is deterministic.

    Args:
        network: network with a scheme applied, in training mode; left unchanged.
        images: (3 or more, channels, height, width) on the network's device.

    Returns:
        Name of the module; None if there is none, because the trunk is random, depends on the other
        images of a batch or updates statistics, or because the module isn't simply the last one.
    """
    owners = [
        name.rpartition(".")[0].split(".")
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    ]
    if not owners:
        return None
    shared = owners[0]
    for owner in owners[1:]:
        same = [one == other for one, other in zip(shared, owner, strict=False)]
        shared = shared[: (same + [False]).index(False)]  # noqa: RUF005  # reads as it is meant
    for depth in range(len(shared), 0, -1):
        name = ".".join(shared[:depth])
        if name and _is_tail(network, name, images):
            return name
    return None


def trunk_outputs(
    network: nn.Module, tail: str, part: Part, *, batch_size: int, memory_format: MemoryFormat
) -> Tensor | None:
    """Compute the trunk's output for every image of a part.

    Args:
        network: network in training mode.
        tail: name of the tail, from `find_tail`.
        part: part of the data, read in order without augmentation.
        batch_size: images per forward pass.
        memory_format: memory format of the images.

    Returns:
        (images, ...) on the network's device; None if it would exceed `LARGEST_CACHE_BYTES`.
    """
    device = next(network.parameters()).device
    batches = part.batches(batch_size, memory_format=memory_format, device=device)
    found: list[Tensor] = []
    for images, _ in batches:
        given, _ = _given(network, tail, images)
        if given.nbytes / len(images) * len(part) > LARGEST_CACHE_BYTES:
            return None
        found.append(given)
    return torch.cat(found)


def cached_batches(
    outputs: Tensor, part: Part, *, batch_size: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate once over a part's trunk outputs, in the order of `part.batches` with that seed.

    Args:
        outputs: (images, ...) outputs of the trunk.
        part: the part they were computed from; it must not augment.
        batch_size: images per batch; an incomplete last batch is dropped.
        seed: seed of the order.

    Yields:
        Batches of outputs and their labels.
    """
    if part.varies:
        raise DataError(f"the {part.name} part is augmented, so its features can't be kept")
    for positions in part.order(batch_size, seed=seed, drop_last=True):
        yield outputs[positions.to(outputs.device)], part.labels[positions].to(outputs.device)


def _is_tail(network: nn.Module, name: str, images: Tensor) -> bool:
    inside = {id(module) for module in network.get_submodule(name).modules()}
    if any(
        isinstance(module, NORMALISATION[0]) and module.training and id(module) not in inside
        for module in network.modules()
    ):
        return False
    # A fixed function gives the first image the same output beside another image and another seed.
    first, other = images[[0, 1]], images[[0, 2]]
    (before, simple), (after, _) = _seeded(network, name, first), _seeded(network, name, other)
    return simple and torch.equal(before[0], after[0])


def _seeded(network: nn.Module, name: str, images: Tensor) -> tuple[Tensor, bool]:
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
        torch.manual_seed(int(images.sum() * 1000) % 2**31)  # differs between batches of images
        return _given(network, name, images)


def _given(network: nn.Module, tail: str, images: Tensor) -> tuple[Tensor, bool]:
    """Return the tail's input, and whether the tail is called once and gives the output."""
    calls: list[tuple[tuple[object, ...], dict[str, object], object]] = []

    def note(
        _module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], out: object
    ) -> None:
        calls.append((args, kwargs, out))

    with ExitStack() as stack:
        handle = network.get_submodule(tail).register_forward_hook(note, with_kwargs=True)
        stack.callback(handle.remove)
        stack.enter_context(torch.no_grad())
        output = run(network, images)
    args, kwargs, out = calls[0] if calls else ((), {}, None)
    given = args[0] if args else None
    if not isinstance(given, Tensor):
        return images.new_zeros(len(images)), False
    simple = len(calls) == 1 and len(args) == 1 and not kwargs and out is output
    return given, simple and given.shape[:1] == images.shape[:1]
