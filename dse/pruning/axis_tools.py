"""Tensors and axes of an operator's arguments and outputs, for the rules of all operators."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from dse.pruning.factors import Factor

Axes = Sequence[Factor]
PLACES = "are distinguished by their places"


def new_axis(size: int) -> Factor:
    """Return an axis of positions that are never removed, such as pixels."""
    return Factor(size, whole="")


def tensors_of(args: Sequence[Any]) -> list[Tensor]:
    """Return the tensors among an operator's arguments."""
    return [arg for arg in args if isinstance(arg, Tensor)]


def outputs_of(result: Any) -> list[Tensor]:
    """Return the tensors that an operator returned, alone or in nested tuples and lists."""
    return tensors_of([result]) if isinstance(result, Tensor) else tensors_of(flattened(result))


def flattened(values: Any) -> list[Any]:
    """Return the values in nested tuples and lists, in order."""
    if isinstance(values, (list, tuple)):
        return [inner for value in values for inner in flattened(value)]
    return [values]


def broadcast(*shapes: torch.Size) -> torch.Size:
    """Return the shape that others broadcast to.

    Raises:
        RuntimeError: If the shapes don't broadcast.
    """
    return torch.Size(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def beside(axes: Axes, result: Any) -> list[Axes]:
    """Return the axes of all outputs: the first has the input's, the others hold statistics."""
    _, *more = outputs_of(result)
    return [axes, *([new_axis(size) for size in output.shape] for output in more)]


def dropped(axes: Axes, places: Iterable[int]) -> list[Factor]:
    """Return the axes that remain without those at some places."""
    gone = {place % len(axes) for place in places}
    return [axis for place, axis in enumerate(axes) if place not in gone]
