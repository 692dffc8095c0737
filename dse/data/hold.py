"""Reads images once, to hold them in memory or to find broken ones."""

from collections.abc import Callable

import torch
from torch import Tensor

from dse.data.parts import LazyImages
from dse.data.survey import OnCount
from dse.inputs import InputSpec

_READ_AT_ONCE = 256  # images; limits the memory of the copy while they are combined


def counter(on_count: OnCount | None, *, total: int) -> Callable[[int], None]:
    """Return a callback that adds up the images read and reports the sum and the total."""
    done = 0

    def advance(read: int) -> None:
        nonlocal done
        done += read
        if on_count is not None:
            on_count(done, total)

    return advance


def in_memory(images: LazyImages, inputs: InputSpec, advance: Callable[[int], None]) -> Tensor:
    """Read every image: (n, ...) of the images' type."""
    held: Tensor | None = None
    for positions in torch.split(torch.arange(len(images)), _READ_AT_ONCE):
        read = images.fetch(positions)
        if held is None:
            held = torch.empty((len(images), *read.shape[1:]), dtype=read.dtype)
        held[positions] = read
        advance(len(positions))
    return torch.empty((0, *inputs.shape), dtype=inputs.dtype) if held is None else held


def read_through(images: LazyImages, advance: Callable[[int], None]) -> None:
    """Read every image without keeping any."""
    for positions in torch.split(torch.arange(len(images)), _READ_AT_ONCE):
        images.fetch(positions)
        advance(len(positions))
