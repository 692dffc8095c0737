"""Places a program's buffers in ExecuTorch's arena by the rule that predictions use, too."""

from collections.abc import Collection
from typing import Any

from dse.memory.placement import place

ALIGNMENT_BYTES = 16  # of every buffer, as ExecuTorch rounds by default


def arena_offsets(lives: list[tuple[int, int]], sizes: list[int]) -> tuple[list[int], int]:
    """Place buffers, and return their offsets and the size of the arena in bytes.

    The order of the buffers doesn't matter.

    Args:
        lives: first and last moment of each buffer's life, inclusive, (buffers,).
        sizes: aligned bytes of each, (buffers,); none may be 0.
    """
    order = sorted(range(len(sizes)), key=lambda one: (lives[one], sizes[one]))
    placed = place(
        [sizes[one] for one in order],
        first=[lives[one][0] for one in order],
        last=[lives[one][1] for one in order],
    )
    offsets = [0] * len(sizes)
    for one, offset in zip(order, placed, strict=True):
        offsets[one] = offset
    return offsets, max((o + s for o, s in zip(offsets, sizes, strict=True)), default=0)


def plan_specs(
    alignment: int,
    specs: Collection[Any],
    _graph_module: Any,
    _graph_signature: Any,
    extra_padding: int = 0,
) -> list[int]:
    """Place the buffers of a lowered program: an algorithm for ExecuTorch's planning pass.

    Returns:
        Sizes of the arenas: ExecuTorch counts from 1, and the first holds everything.
    """
    for spec in specs:
        spec.realign(alignment)
    own = [spec for spec in specs if spec.storage_base is None and spec.allocated_memory]
    offsets, total = arena_offsets(
        [tuple(spec.lifetime) for spec in own], [spec.allocated_memory for spec in own]
    )
    found = dict(zip(map(id, own), offsets, strict=True))
    for number, spec in enumerate(specs):
        spec.mem_id, spec.mem_obj_id = 1, number
        spec.mem_offset = _offset(spec, found)
    return [0, total + extra_padding]


def _offset(spec: Any, found: dict[int, int]) -> int:
    if spec.storage_base is None:
        return found.get(id(spec), 0)  # an empty buffer lies anywhere
    return _offset(spec.storage_base, found) + int(spec.storage_base_offset)
