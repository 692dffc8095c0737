"""The rule of each operator: what it tells about the axes of its tensors.

Reductions and operators without a rule of their own are followed here.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dse.pruning.axis_tools import (
    Axes,
    broadcast,
    dropped,
    flattened,
    new_axis,
    outputs_of,
    tensors_of,
)
from dse.pruning.dimension_flow import Flow, Rule
from dse.pruning.factors import Factor, is_whole
from dse.pruning.layer_rules import LAYERS
from dse.pruning.moving_rules import MOVING


def others(flow: Flow, args: Sequence[Any], result: Any) -> list[Axes]:
    """Follow an operator that has no rule of its own.

    If its result has the shape that its inputs broadcast to, it works element by element. If only
    the size of feature maps changes, it works channel by channel. Otherwise nothing is known.
    """
    outputs = outputs_of(result)
    given = tensors_of(flattened(args))
    if not given:
        return [[Factor(size) for size in output.shape] for output in outputs]
    return [_one(flow, given, output) for output in outputs]


def _one(flow: Flow, given: Sequence[Tensor], output: Tensor) -> Axes:
    try:
        shape = broadcast(*(tensor.shape for tensor in given))
    except RuntimeError:
        shape = None
    if shape == output.shape:
        return _elementwise(flow, given, output)
    first = given[0]
    pooled = first.dim() == output.dim() > 2 and first.shape[:2] == output.shape[:2]  # noqa: PLR2004
    axes = flow.axes(first)
    if pooled and all(is_whole(axis) for axis in axes[2:]):
        return [*axes[:2], *(new_axis(size) for size in output.shape[2:])]
    for tensor in given:
        flow.whole(flow.axes(tensor), f"go through {flow.operator}, which isn't followed,")
    return [new_axis(size) for size in output.shape]


def _elementwise(flow: Flow, given: Sequence[Tensor], output: Tensor) -> Axes:
    axes = []
    for place, size in enumerate(reversed(output.shape)):
        own = [
            flow.axes(tensor)[-1 - place]
            for tensor in given
            if tensor.dim() > place and tensor.shape[-1 - place] == size
        ]
        for other in own[1:]:
            flow.same(own[0], other)
        axes.append(own[0] if own else Factor(size))
    return axes[::-1]


def _along(flow: Flow, args: Sequence[Any], result: Any) -> list[Axes]:
    """Follow an operator whose results along some axes depend on all or on the order."""
    axes = flow.axes(args[0])
    places = [place for arg in args[1:] for place in _places(arg)]
    mixed = [axes[place] for place in places if -len(axes) <= place < len(axes)]
    flow.whole(mixed, f"are mixed or reordered by {flow.operator}")
    return [
        [
            axis if axis.size == size else new_axis(size)
            for axis, size in zip(axes, output.shape, strict=True)
        ]
        for output in outputs_of(result)
    ]


def _topk(flow: Flow, args: Sequence[Any], result: Any) -> list[Axes]:
    """Follow ``topk``, whose first number is no axis, but how many values it returns."""
    values, _, *others_given = args
    return _along(flow, [values, *others_given], result)


def _places(arg: Any) -> list[int]:
    if isinstance(arg, bool):
        return []
    if isinstance(arg, int):
        return [arg]
    return [each for each in arg if isinstance(each, int)] if isinstance(arg, (list, tuple)) else []


def _reduced(flow: Flow, args: Sequence[Any], result: Any) -> list[Axes]:
    """Follow a reduction over the axes that its result lacks, or has with one position."""
    axes = flow.axes(args[0])
    places = next((arg for arg in args[1:] if isinstance(arg, (list, tuple))), None)
    if places is None:
        places = [arg for arg in args[1:2] if isinstance(arg, int) and not isinstance(arg, bool)]
    outputs: list[Axes] = []
    for output in outputs_of(result):
        if output.dim() == 0:
            own = []  # all axes are reduced; a number among the arguments may be a norm's order
        elif output.dim() == len(axes):
            gone = {place % len(axes) for place in places} if places else set(range(len(axes)))
            own = [new_axis(1) if place in gone else axis for place, axis in enumerate(axes)]
        else:
            own = dropped(axes, places)
        outputs.append(own)
    return outputs


def _maybe_reduced(flow: Flow, args: Sequence[Any], result: Any) -> list[Axes]:
    """Follow a name that stands for a reduction, or, of two tensors, works element by element."""
    if len(tensors_of(args)) > 1:
        return others(flow, args, result)
    return _reduced(flow, args, result)


RULES: dict[str, Rule] = {
    **MOVING,
    **LAYERS,
    **dict.fromkeys(
        ("softmax", "log_softmax", "safe_softmax", "cumsum", "cumprod", "sort", "flip"),
        _along,
    ),
    "topk": _topk,
    **dict.fromkeys(
        (
            "mean",
            "sum",
            "amax",
            "amin",
            "var",
            "std",
            "var_mean",
            "std_mean",
            "linalg_vector_norm",
            "norm",
            "argmax",
            "argmin",
            "max",
            "min",
            "prod",
            "all",
            "any",
            "logsumexp",
        ),
        _maybe_reduced,
    ),
}
