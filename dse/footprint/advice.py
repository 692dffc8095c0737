"""What would make a step fit: one change at a time, each traced, none estimated."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
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
IMAGE_STEP = 32  # what most networks reduce an image by


@dataclass(frozen=True)
class Remedy:
    """One change, all else being as asked.

    Attributes:
        change: what is changed; ``none`` is the step as asked.
        value: to what; a number as text.
        peak_bytes: of the changed step, convention ``tensors``.
        fits: whether that is within the RAM.
        largest_batch_size: whose step fits after the change, 0 where not even one image's does.
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
    settings: StepSettings,
    batch_size: int,
    ram_bytes: int,
    pruning: MemoryModel | None = None,
    kept: Sequence[int] = (),
    on_progress: Callable[[str], None] | None = None,
) -> tuple[Remedy, ...]:
    """Try what makes a step smaller, each change alone.

    Args:
        network: the candidate itself, pruned if it is; left as it is.
        image_size: side of the images.
        settings: of the step.
        batch_size: images per step.
        ram_bytes: what is to be met.
        pruning: model of the unpruned network with its channel groups; None leaves pruning out.
        kept: (groups,) channels of the candidate.
        on_progress: told what is tried next.

    Returns:
        The step as it is first; then the largest batch, schemes, checkpointing, the optimizer
        without state, the largest image and the smallest uniform pruning ratio that fit.
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
        return judged(change, value, _compiled(network, size, settings=settings))

    model = _compiled(network, image_size, settings=settings)
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
    """Nobody listens."""


def _compiled(network: nn.Module, image_size: int, *, settings: StepSettings) -> MemoryModel:
    return compiled_model(
        network,
        example_input(2, image_size),
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
    """The largest smaller image that fits; nothing where none does."""
    below = (image_size - 1) // IMAGE_STEP * IMAGE_STEP
    for size in range(below, SMALLEST_IMAGE - 1, -IMAGE_STEP):
        try:
            remedy = tried("image size", str(size), size=size)
        except MemoryModelError:
            return  # too small an image for this network, and so are those below
        if remedy.fits:
            yield remedy
            return


def _pruned(
    model: MemoryModel, kept: Sequence[int], *, batch_size: int, ram_bytes: int
) -> Iterator[Remedy]:
    """The smallest share by which pruning every group alike makes the step fit."""
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
