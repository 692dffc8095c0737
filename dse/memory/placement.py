"""Static placement of buffers by TensorFlow Lite Micro's greedy rule.

The rule is that of ``greedy_memory_planner.cc`` in tensorflow/tflite-micro. Buffers are placed by
size, largest first; among equal ones, the buffer that was added last comes first. Each buffer goes
into the first sufficient gap between the placed buffers whose lives overlap with its own, or behind
the last of them.
"""

from bisect import insort
from collections.abc import Sequence


def place(sizes: Sequence[int], *, first: Sequence[int], last: Sequence[int]) -> list[int]:
    """Return the offsets of buffers in one arena.

    Args:
        sizes: Sizes in any unit, above zero, shape (buffers,).
        first: First moment of each buffer's life, shape (buffers,).
        last: Last moment of each buffer's life, inclusive, shape (buffers,).

    Returns:
        Offsets in the same unit, shape (buffers,).
    """
    offsets = [0] * len(sizes)
    placed: list[tuple[int, int, int]] = []  # (offset, end, buffer), sorted by offset
    for buffer in sorted(range(len(sizes)), key=lambda index: (-sizes[index], -index)):
        offset = 0
        for start, end, other in placed:
            if first[other] > last[buffer] or last[other] < first[buffer]:
                continue
            if start - offset >= sizes[buffer]:
                break
            offset = max(offset, end)
        offsets[buffer] = offset
        insort(placed, (offset, offset + sizes[buffer], buffer))
    return offsets
