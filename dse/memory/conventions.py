"""The conventions of counting, and one candidate's peak by each of them."""

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
"""What an arena holds beyond the most that is alive at once."""


def check_convention(
    name: str, *, settings: StepSettings, element_bits: int = 32, probe: bool = False
) -> None:
    """Refuse a convention that isn't known, or doesn't know what is asked.

    Args:
        name: of the convention.
        settings: of the step.
        element_bits: of a floating-point element on the device.
        probe: whether operators are run again that the cache knows.

    Raises:
        ConfigError: so it is.
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
    """What one candidate holds at its peak, as a convention counts it.

    Args:
        convention: one of ``CONVENTIONS`` but ``allocator``, which runs operators on a device (see
            ``probed_timeline``).
        model: of the network and step.
        channels: (groups,) kept channels.
        batch_size: images per step.
        network: unpruned; its shapes are used by ``layerwise`` alone, as the next two are.
        example_input: (any batch, channels, height, width).
        groups: those of the model.
        element_bits: of a floating-point element on the device, for ``arena``.

    Raises:
        DseError: the convention can't count this step.
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
        units = np.array(
            [count // group.multiple for count, group in zip(channels, model.groups, strict=True)],
            dtype=np.int64,
        )
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
    """The moment at which most is alive, and what the placement needs beyond it."""
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
