"""The conventions of counting memory, and one candidate's peak under each of them."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dse.errors import ConfigError, MemoryModelError
from dse.memory.arena import ArenaLayout, Placement, arena_layout, arena_placement
from dse.memory.layerwise import LayerwiseMemory, layerwise_memory
from dse.memory.model import MemoryModel
from dse.memory.tape import ACTIVATION, CATEGORIES
from dse.memory.timeline import Breakdown
from dse.names import CONVENTIONS, use
from dse.pruning.groups import ChannelGroup
from dse.step.settings import StepSettings

FRAGMENTATION = "fragmentation"
"""Bytes of an arena beyond the largest number of bytes alive at one moment."""


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
    if name != "arena" and element_bits != 32:  # noqa: PLR2004  # the bits of a float
        raise ConfigError(
            f"--element-bits {element_bits} needs --convention arena: the others count the "
            "elements as they are"
        )
    if name != "allocator" and probe:
        raise ConfigError(
            f"--probe runs operators again for --convention allocator, not for {name}: add "
            "--convention allocator"
        )
    special = (
        settings.accumulate > 1
        or settings.checkpointing != "none"
        or settings.precision != "float32"
    )
    if name == "layerwise" and special:
        raise ConfigError(
            "--convention layerwise knows no accumulation, checkpointing or bf16: leave them out, "
            "or use --convention tensors"
        )


def breakdown_by(
    convention: str,
    model: MemoryModel,
    channels: Sequence[int],
    *,
    batch_size: int,
    network: nn.Module,
    example_input: torch.Tensor,
    groups: Sequence[ChannelGroup],
    element_bits: int = 32,
) -> Breakdown:
    """Return what one candidate holds at its peak, counted by a convention.

    Args:
        convention: One of ``CONVENTIONS`` except ``allocator``, which runs operators on a device
            (see ``probed_timeline``).
        model: Memory model of the network and step.
        channels: Kept channels, shape (groups,).
        batch_size: Images per step.
        network: The unpruned network. Only ``layerwise`` uses it and the next two arguments.
        example_input: Tensor (any batch, channels, height, width).
        groups: Channel groups of the model.
        element_bits: Bits of a floating-point element on the device, for ``arena``.

    Raises:
        DseError: If the convention can't count this step.
    """
    if convention == "allocator":
        raise MemoryModelError(
            "the allocator convention runs operators: use dse.memory.probed.probed_timeline"
        )
    if convention == "layerwise":
        return _layerwise(
            layerwise_memory(
                network,
                example_input,
                batch_size=batch_size,
                scheme=model.settings.scheme,
                mode=model.settings.mode,
                groups=groups,
                channels=channels,
            ),
            batch_size=batch_size,
        )
    if convention == "arena":
        layout = arena_layout(model.tape, element_bits=element_bits)
        units = model.units(channels)
        placed = arena_placement(layout, units, batch_size=batch_size)
        return _arena(layout, placed, units, batch_size=batch_size)
    return model.breakdown(channels, batch_size=batch_size)


def _layerwise(found: LayerwiseMemory, *, batch_size: int) -> Breakdown:
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


def _arena(
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
