"""Give tensors the strides that those of stock PyTorch have.

Images of one pixel or of one channel are contiguous and channels-last at once, but PyTorch's
operators read off their strides which kernel to take. An operator that acts on each value lays out
a new tensor contiguously there, and leaves the strides of one that it overwrites. Lean training
overwrites others than stock PyTorch, so it corrects the strides: they are part of the same bits.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dse.memory_formats import memory_format_of


class Layout(NamedTuple):
    """Shape and memory format of a value."""

    shape: torch.Size
    memory_format: torch.memory_format

    def empty(self, like: Tensor) -> Tensor:
        """Return a tensor of this layout, of the type and on the device of another."""
        return torch.empty(
            self.shape, dtype=like.dtype, device=like.device, memory_format=self.memory_format
        )


def layout_of(value: Tensor) -> Layout:
    """Return a value's layout."""
    return Layout(value.shape, memory_format_of(value))


def laid_out_anew(value: Tensor) -> Tensor:
    """Give a value that was overwritten the strides of a new one, and return it."""
    return laid_out_in(value, torch.contiguous_format)


def laid_out_in(value: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Give a value the strides of a memory format, if it may have them as it is, and return it."""
    if value.is_contiguous(memory_format=memory_format):
        order = range(value.ndim)
        last = memory_format != torch.contiguous_format
        _restride(value, _strides(value.shape, (0, *order[2:], 1) if last else order))
    return value


def laid_out_as_stock(value: Tensor, *, in_place: bool, overwritten: Tensor | None) -> Tensor:
    """Give what an operator computed for each value the strides that it has in stock PyTorch.

    Args:
        value: The result.
        in_place: Whether it was written over an input.
        overwritten: The input that stock PyTorch overwrites, None if it makes a new tensor.
    """
    if overwritten is None:
        return laid_out_anew(value) if in_place else value
    if value.is_contiguous() and overwritten.is_contiguous():
        _restride(value, overwritten.stride())
    return value


def _restride(value: Tensor, strides: tuple[int, ...]) -> None:
    if value.stride() != strides:
        value.as_strided_(value.shape, strides)


def _strides(shape: torch.Size, order: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a tensor without gaps whose dimensions lie in an order."""
    strides, step = [0] * len(shape), 1
    for dimension in reversed(order):
        strides[dimension] = step
        step *= max(shape[dimension], 1)
    return tuple(strides)
