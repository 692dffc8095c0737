"""The conventions of counting memory, and one candidate's peak by each of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dse import names
from dse.errors import ConfigError, MemoryModelError
from dse.memory.arena import ArenaLayout, Placement, arena_layout, arena_placement
from dse.memory.layerwise import LayerwiseMemory, layerwise_memory
from dse.memory.model import MemoryModel
from dse.memory.probed import probed_timeline
from dse.memory.tape import ACTIVATION, CATEGORIES
from dse.memory.timeline import Breakdown, Timeline
from dse.names import either, use
from dse.networks.devices import threads_set
from dse.pruning.groups import ChannelGroup
from dse.registry import Registry
from dse.step.canonical import Loss, classification_loss
from dse.step.settings import StepSettings

FRAGMENTATION = "fragmentation"
"""Bytes of an arena beyond the largest number of bytes alive at one moment."""

TENSORS = "tensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class CountedStep:
    """One candidate's step, with everything that a convention may use.

    Attributes:
        model: Memory model of the network and step.
        channels: Kept channels, shape (groups,).
        batch_size: Images per step.
        network: The unpruned network.
        example_input: Tensor (any batch, channels, height, width).
        groups: Channel groups of the model.
        loss: Loss of outputs and targets.
        element_bits: Bits of a floating-point element on the device, for ``arena``.
        device: Device that runs operators, for ``allocator``.
        threads: CPU threads that run operators, 0 for all cores, for ``allocator``.
        renew: Whether to run every operator again, ignoring the cache, for ``allocator``.
        only_cached: Whether no operator may run, for ``allocator``.
    """

    model: MemoryModel
    channels: Sequence[int]
    batch_size: int
    network: nn.Module
    example_input: torch.Tensor
    groups: Sequence[ChannelGroup]
    loss: Loss = classification_loss
    element_bits: int = 32
    device: str = "cpu"
    threads: int = 0
    renew: bool = False
    only_cached: bool = False


@dataclass(frozen=True, kw_only=True)
class ConventionKind:
    """An entry of ``CONVENTIONS``.

    Attributes:
        count: Counts a step, and returns what it holds over time, or at its peak alone.
        objection: Returns why the convention can't count steps with some settings, as the end of a
            message; None if it can.
        takes_element_bits: Whether ``element_bits`` matters.
        runs_operators: Whether it runs operators on ``device``.
    """

    count: Callable[[CountedStep], Timeline | Breakdown]
    objection: Callable[[StepSettings], str | None] = lambda _settings: None
    takes_element_bits: bool = False
    runs_operators: bool = False


CONVENTIONS: Registry[ConventionKind] = Registry("convention", names.CONVENTIONS)


@dataclass(frozen=True, kw_only=True)
class Count:
    """One candidate's step, counted by a convention.

    Attributes:
        breakdown: The peak by category, and where it is reached.
        timeline: Memory over the step.
        timeline_convention: What the timeline counts: the requested convention, or ``tensors`` if
            that gives a peak alone.
    """

    breakdown: Breakdown
    timeline: Timeline
    timeline_convention: str


def count_step(convention: str, step: CountedStep) -> Count:
    """Count one candidate's step.

    Raises:
        ConfigError: If the convention is unknown.
        DseError: If it can't count this step, or the device can't run an operator.
    """
    found = CONVENTIONS[convention].count(step)
    if isinstance(found, Timeline):
        return Count(breakdown=found.breakdown(), timeline=found, timeline_convention=convention)
    return Count(breakdown=found, timeline=_tensors(step), timeline_convention=TENSORS)


def check_convention(
    name: str, *, settings: StepSettings, element_bits: int = 32, probe: bool = False
) -> None:
    """Check that a convention exists and supports the given options.

    Args:
        name: Name of the convention.
        settings: Settings of the step.
        element_bits: Bits of a floating-point element on the device.
        probe: Whether cached operators are run again.

    Raises:
        ConfigError: If the convention is unknown, or an option does not apply to it.
    """
    if name not in CONVENTIONS:
        raise ConfigError(f"--convention {name!r} is not known: {use(CONVENTIONS, given=name)}")
    kind = CONVENTIONS[name]
    if element_bits != 32 and not kind.takes_element_bits:  # noqa: PLR2004  # the bits of a float
        takes = either(word for word, one in CONVENTIONS.items() if one.takes_element_bits)
        raise ConfigError(
            f"--element-bits {element_bits} needs --convention {takes}: the others count the "
            "elements as they are"
        )
    if probe and not kind.runs_operators:
        raise ConfigError(
            f"--probe runs operators again, and --convention {name} runs none: add --convention "
            f"{operator_conventions()}"
        )
    if (objection := kind.objection(settings)) is not None:
        raise ConfigError(f"--convention {name} {objection}")


def operator_conventions() -> str:
    """Return the names of the conventions that run operators on a device, as a choice."""
    return either(word for word, kind in CONVENTIONS.items() if kind.runs_operators)


def _tensors(step: CountedStep) -> Timeline:
    return step.model.timeline(step.channels, batch_size=step.batch_size)


def _allocator(step: CountedStep) -> Timeline:
    with threads_set(step.threads):
        return probed_timeline(
            step.network,
            step.example_input,
            batch_size=step.batch_size,
            settings=step.model.settings,
            loss=step.loss,
            device=step.device,
            groups=step.groups,
            channels=step.channels,
            renew=step.renew,
            only_cached=step.only_cached,
        )


def _layerwise(step: CountedStep) -> Breakdown:
    settings = step.model.settings
    found = layerwise_memory(
        step.network,
        step.example_input,
        batch_size=step.batch_size,
        scheme=settings.scheme,
        mode=settings.mode,
        groups=step.groups,
        channels=step.channels,
    )
    return _layerwise_breakdown(found, batch_size=step.batch_size)


def _layerwise_objection(settings: StepSettings) -> str | None:
    special = (
        settings.accumulate > 1
        or settings.checkpointing != "none"
        or settings.precision != "float32"
        or settings.lean
    )
    if not special:
        return None
    return (
        "does not cover accumulation, checkpointing, bf16 or lean steps: leave them out, or use "
        f"--convention {TENSORS}"
    )


def _arena(step: CountedStep) -> Breakdown:
    layout = arena_layout(step.model.tape, element_bits=step.element_bits)
    units = step.model.units(step.channels)
    placed = arena_placement(layout, units, batch_size=step.batch_size)
    return _arena_breakdown(layout, placed, units, batch_size=step.batch_size)


CONVENTIONS.register(TENSORS, ConventionKind(count=_tensors))
CONVENTIONS.register("allocator", ConventionKind(count=_allocator, runs_operators=True))
CONVENTIONS.register("layerwise", ConventionKind(count=_layerwise, objection=_layerwise_objection))
CONVENTIONS.register("arena", ConventionKind(count=_arena, takes_element_bits=True))


def _layerwise_breakdown(found: LayerwiseMemory, *, batch_size: int) -> Breakdown:
    layer = max(found.layers, key=lambda layer: layer.needed_bits)
    temporary = (layer.temporary_bytes + layer.held_bytes) * batch_size
    categories = dict.fromkeys(CATEGORIES, 0)
    categories |= {
        "weights": found.parameter_bytes,
        "saved": found.activation_bytes - temporary,
        "temporary": temporary,
    }
    return Breakdown(
        peak_bytes=found.peak_bytes,
        peak_activation_bytes=found.activation_bytes,
        categories=categories,
        phase="forward",
        operator=layer.kind,
        module=layer.module,
    )


def _arena_breakdown(
    layout: ArenaLayout, placed: Placement, units: NDArray[np.int64], *, batch_size: int
) -> Breakdown:
    """Return the moment at which most bytes are alive, with the fragmentation of the placement."""
    categories = dict.fromkeys(CATEGORIES, 0)
    first, last = layout.lives
    moments = range(int(last.max(initial=0)) + 1)
    alive = [(first <= moment) & (moment <= last) for moment in moments]
    fullest = max(moments, key=lambda moment: int(placed.size_bytes[alive[moment]].sum()))
    born = None
    for block, here, size in zip(
        placed.blocks, alive[fullest].tolist(), placed.size_bytes.tolist(), strict=True
    ):
        if here:
            categories[block.category] += size
            born = block.born if block.first_moment == fullest else born
    for name, held in layout.resident_bytes(units, batch_size=batch_size).items():
        categories[name] += held
    categories[FRAGMENTATION] = placed.arena_bytes - placed.lower_bound_bytes
    if sum(categories.values()) != placed.arena_bytes or born is None:
        raise MemoryModelError("the arena's parts don't add up; please report this network")
    return Breakdown(
        peak_bytes=placed.arena_bytes,
        peak_activation_bytes=sum(categories[name] for name in ACTIVATION),
        categories=categories,
        phase=born.phase,
        operator=born.operator,
        module=born.module,
    )
