"""Remedies that make a step fit: single changes, each traced exactly."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import nn

from dse.candidate import kept_channels
from dse.errors import MemoryModelError, NetworkError
from dse.memory.cache import compiled_model
from dse.memory.explain import largest_batch
from dse.memory.model import MemoryModel
from dse.networks.build import example_input
from dse.step.lite_residual import LITE_RESIDUAL
from dse.step.settings import StepSettings

Change = Literal[
    "none", "batch size", "scheme", "checkpointing", "optimizer", "image size", "pruning"
]

SCHEMES = ("last", "norm", "bias", LITE_RESIDUAL)
RATIOS = np.linspace(0.01, 0.99, 99)
SMALLEST_IMAGE = 32
IMAGE_STEP = 32  # factor by which most networks downsample an image


@dataclass(frozen=True)
class Remedy:
    """One change to a step, with all other settings unchanged.

    Attributes:
        change: Which setting is changed. ``none`` is the requested step itself.
        value: New value of the setting, as a string.
        peak_bytes: Peak of the changed step under the convention ``tensors``.
        fits: Whether that peak fits into the RAM.
        largest_batch_size: Largest batch size that fits after the change. 0 if not even one image
            fits.
    """

    change: Change
    value: str
    peak_bytes: int
    fits: bool
    largest_batch_size: int


def remedies(
    network: nn.Module,
    *,
    image_size: int,
    image_channels: int = 3,
    settings: StepSettings,
    batch_size: int,
    ram_bytes: int,
    pruning: MemoryModel | None = None,
    kept: Sequence[int] = (),
    on_progress: Callable[[str], None] | None = None,
) -> tuple[Remedy, ...]:
    """Try changes that make a step smaller, each on its own.

    Args:
        network: The candidate's network, pruned if the candidate is. It is not changed.
        image_size: Side of the images in pixels.
        image_channels: Channels of the images.
        settings: Settings of the step.
        batch_size: Images per step.
        ram_bytes: RAM that the step should fit into.
        pruning: Memory model of the unpruned network with its channel groups. If None, pruning is
            not tried.
        kept: Channels of the candidate, shape (groups,).
        on_progress: Called with a description of the next change.

    Returns:
        The unchanged step first, then the largest batch size that fits, each scheme, checkpointing,
        the optimizer without state, the largest image size that fits, and the smallest uniform
        pruning ratio that fits.
    """
    say = on_progress or _unheard

    def judged(change: Change, value: str, model: MemoryModel) -> Remedy:
        peak = int(model.peaks([], batch_size=batch_size))
        batch = largest_batch(model, [], budget_bytes=ram_bytes)
        return Remedy(change, value, peak, peak <= ram_bytes, batch)

    def tried(
        change: Change,
        value: str,
        *,
        size: int = image_size,
        settings: StepSettings = settings,
    ) -> Remedy:
        say(f"{change} {value}")
        example = example_input(2, size, channels=image_channels)
        return judged(change, value, _compiled(network, example, settings=settings))

    example = example_input(2, image_size, channels=image_channels)
    model = _compiled(network, example, settings=settings)
    as_asked = judged("none", "", model)
    found = [as_asked]
    if 0 < (batch := as_asked.largest_batch_size) < batch_size:
        peak = int(model.peaks([], batch_size=batch))
        found.append(Remedy("batch size", str(batch), peak, fits=True, largest_batch_size=batch))
    if settings.mode == "training":
        found += _schemes(tried, settings)
        if settings.checkpointing == "none":
            blocks = replace(settings, checkpointing="blocks")
            found += _with_blocks(partial(tried, "checkpointing", "blocks", settings=blocks))
        if settings.optimizer != "sgd":
            plain = replace(settings, optimizer="sgd", nesterov=False)
            found.append(tried("optimizer", "sgd", settings=plain))
    if not as_asked.fits:
        found += _smaller_images(tried, image_size)
        if pruning is not None:
            say("pruning")
            found += _pruned(pruning, kept, batch_size=batch_size, ram_bytes=ram_bytes)
    return tuple(found)


def _unheard(_text: str) -> None:
    """Ignore the text: the default of ``on_progress``."""


def _compiled(network: nn.Module, example: torch.Tensor, *, settings: StepSettings) -> MemoryModel:
    return compiled_model(
        network,
        example,
        settings=settings,
        groups=(),
    )


def _schemes(tried: Callable[..., Remedy], settings: StepSettings) -> Iterator[Remedy]:
    for name in SCHEMES:
        if name != settings.scheme:
            other = replace(settings, scheme=name)
            yield from _with_blocks(partial(tried, "scheme", name, settings=other))


def _with_blocks(tried: Callable[[], Remedy]) -> Iterator[Remedy]:
    try:
        yield tried()
    except NetworkError:
        return  # this network has no blocks


def _smaller_images(tried: Callable[..., Remedy], image_size: int) -> Iterator[Remedy]:
    """Yield the largest smaller image size that fits, if any."""
    below = (image_size - 1) // IMAGE_STEP * IMAGE_STEP
    for size in range(below, SMALLEST_IMAGE - 1, -IMAGE_STEP):
        try:
            remedy = tried("image size", str(size), size=size)
        except MemoryModelError:
            return  # the network can't run on images of this size, nor on smaller ones
        if remedy.fits:
            yield remedy
            return


def _pruned(
    model: MemoryModel, kept: Sequence[int], *, batch_size: int, ram_bytes: int
) -> Iterator[Remedy]:
    """Yield the smallest uniform pruning ratio with which the step fits, if any."""
    candidates = np.array(
        [
            [
                kept_channels(count, float(ratio), multiple=group.multiple)
                for count, group in zip(kept, model.groups, strict=True)
            ]
            for ratio in RATIOS
        ]
    )
    peaks = model.peaks(candidates, batch_size=batch_size)
    fitting = np.flatnonzero(peaks <= ram_bytes)
    if len(fitting):
        first = int(fitting[0])
        yield Remedy(
            "pruning",
            f"{RATIOS[first]:.2f}",
            int(peaks[first]),
            fits=True,
            largest_batch_size=largest_batch(model, candidates[first], budget_bytes=ram_bytes),
        )
