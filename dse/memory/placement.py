"""Static placement of buffers by TensorFlow Lite Micro's greedy rule.

The rule is that of ``greedy_memory_planner.cc`` in tensorflow/tflite-micro: buffers are taken by
size, largest first, of equal ones the one that was added last. Each goes into the first gap that
is large enough between the buffers placed before it that are alive at some moment when it is, or
else behind the last of them.
"""

from bisect import insort
from collections.abc import Sequence


def place(sizes: Sequence[int], *, first: Sequence[int], last: Sequence[int]) -> list[int]:
    """Offsets of buffers in one arena.

    Args:
        sizes: (buffers,) above zero, in any unit.
        first: (buffers,) first moment of each one's life.
        last: (buffers,) last moment, included.

    Returns:
        (buffers,) offsets in the same unit.
    """
    offsets = [0] * len(sizes)
    placed: list[tuple[int, int, int]] = []  # offset, end and buffer, the lowest first
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
