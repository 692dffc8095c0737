"""Static placement of buffers by TensorFlow Lite Micro's greedy rule, for many candidates at once.

The rule is that of ``greedy_memory_planner.cc`` in tensorflow/tflite-micro: buffers are taken by
size, largest first, of equal ones the one that was added last. Each goes into the first gap that
is large enough between the buffers placed before it that are alive at some moment when it is, or
else behind the last of them.

Most of the time goes into walking over what is placed already. The loop is written so that numba
compiles it where that is installed (the extra ``fast``); without it the same lines run as Python,
some fifty times slower, with the same result.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

COMPILED = find_spec("numba") is not None
"""Whether placements run as machine code."""


def place(sizes: Ints, *, first: Ints, last: Ints) -> Ints:
    """Offsets of buffers of many candidates that live and die alike.

    Args:
        sizes: (n, buffers) above zero, in any unit.
        first: (buffers,) first moment of each one's life.
        last: (buffers,) last moment, included.

    Returns:
        (n, buffers) offsets in the same unit.
    """
    order = _by_size(sizes)
    buffers = sizes.shape[1]
    if COMPILED:
        offsets = np.zeros(sizes.shape, dtype=np.int64)
        scratch = np.zeros((3, buffers), dtype=np.int64)
        _compiled()(order, sizes, first, last, scratch, offsets)
        return offsets
    rows = [[0] * buffers for _ in sizes]
    place_rows(
        order.tolist(),
        sizes.tolist(),
        first.tolist(),
        last.tolist(),
        [[0] * buffers for _ in range(3)],
        rows,
    )
    return np.array(rows, dtype=np.int64).reshape(sizes.shape)


def _by_size(sizes: Ints) -> Ints:
    """Buffers of each candidate, largest first, of equal ones the last first: (n, buffers)."""
    bits = sizes.shape[1].bit_length()
    keys = (sizes << bits) | np.arange(sizes.shape[1])
    keys.sort(axis=1)
    return np.ascontiguousarray(keys[:, ::-1] & ((1 << bits) - 1))


def place_rows(  # noqa: PLR0917  # numba's calls are positional
    order: Any, sizes: Any, first: Any, last: Any, scratch: Any, offsets: Any
) -> None:
    """Place every candidate; arguments are integer arrays, or lists of the same form.

    Args:
        order: (n, buffers) in which buffers are placed.
        sizes: (n, buffers).
        first: (buffers,) first moments.
        last: (buffers,) last moments.
        scratch: (3, buffers), overwritten: each buffer's end, and the list of those placed by
            offset as the next and the previous one of each.
        offsets: (n, buffers), overwritten with the result.
    """
    end, following, preceding = scratch[0], scratch[1], scratch[2]
    for candidate in range(len(order)):
        size_of, offset_of = sizes[candidate], offsets[candidate]
        lowest = highest = previous = -1
        for buffer in order[candidate]:
            size, born, dies = size_of[buffer], first[buffer], last[buffer]
            offset, other = 0, lowest
            if (
                previous >= 0
                and size_of[previous] == size
                and first[previous] == born
                and last[previous] == dies
            ):  # below its twin, placed just before, there is no gap for it either
                offset, other = end[previous], following[previous]
            while other >= 0:
                # One that isn't alive then may end the search too: the gap before it is part of
                # the gap before the next that is.
                if offset_of[other] - offset >= size:
                    break
                if first[other] <= dies and last[other] >= born and end[other] > offset:
                    offset = end[other]
                other = following[other]
            below = highest if other < 0 else preceding[other]
            while below >= 0 and offset_of[below] > offset:
                other, below = below, preceding[below]
            following[buffer], preceding[buffer] = other, below
            if below < 0:
                lowest = buffer
            else:
                following[below] = buffer
            if other < 0:
                highest = buffer
            else:
                preceding[other] = buffer
            offset_of[buffer], end[buffer] = offset, offset + size
            previous = buffer


@cache
def _compiled() -> Callable[..., None]:
    """``place_rows`` as machine code; compiled once and kept on disk beside this file."""
    numba = import_module("numba")
    compiled: Callable[..., None] = numba.njit(nogil=True, cache=True)(place_rows)
    return compiled
