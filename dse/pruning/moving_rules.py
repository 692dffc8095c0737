"""Rules of operators that move values without computing: reshapes, slices, indices, padding."""

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor

from dse.pruning.axis_tools import PLACES, Axes, broadcast, dropped, new_axis, outputs_of
from dse.pruning.dimension_flow import Flow, Rule
from dse.pruning.factor_division import divided, grouped
from dse.pruning.factors import Factor, is_whole, product_of, sum_of


def _view(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    axes = flow.axes(args[0])
    if tuple(args[0].shape) == tuple(result.shape):
        return [axes]
    return [grouped(axes, result.shape)]


def _permute(flow: Flow, args: Sequence[Any], _result: Tensor) -> list[Axes]:
    axes = flow.axes(args[0])
    return [[axes[place] for place in args[1]]]


def _transpose(flow: Flow, args: Sequence[Any], _result: Tensor) -> list[Axes]:
    axes = list(flow.axes(args[0]))
    one, two = (args[1], args[2]) if len(args) > 2 else (0, len(axes) - 1)  # noqa: PLR2004
    axes[one], axes[two] = axes[two], axes[one]
    return [axes]


def _squeeze(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    axes = flow.axes(args[0])
    kept = [axis for axis in axes if axis.size > 1]
    places = iter(kept)
    return [[next(places) if size > 1 else new_axis(1) for size in result.shape]]


def _expand(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    axes = flow.axes(args[0])
    more = result.dim() - len(axes)
    own = [None] * more + list(axes)
    return [
        [
            axis if axis is not None and axis.size == size else Factor(size)
            for axis, size in zip(own, result.shape, strict=True)
        ]
    ]


def _repeat(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    axes = flow.axes(args[0])
    own = [new_axis(1)] * (result.dim() - len(axes)) + list(axes)
    return [
        [
            axis if times == 1 else product_of([Factor(times), axis])
            for axis, times in zip(own, args[1], strict=True)
        ]
    ]


def _select(flow: Flow, args: Sequence[Any], _result: Tensor) -> list[Axes]:
    axes = flow.axes(args[0])
    flow.whole([axes[args[1]]], PLACES)
    return [dropped(axes, [args[1]])]


def _unbind(flow: Flow, args: Sequence[Any], result: Any) -> list[Axes]:
    axes = flow.axes(args[0])
    flow.whole([axes[args[1] or 0]], PLACES)
    return [dropped(axes, [args[1] or 0]) for _ in outputs_of(result)]


def _slice(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    axes = list(flow.axes(args[0]))
    dim, start, _end, step = (args[1] or 0), args[2] or 0, args[3], args[4] or 1
    whole, size = axes[dim], result.shape[dim]
    if size == whole.size:
        return [axes]
    if step != 1:
        flow.whole([whole], PLACES)
        axes[dim] = new_axis(size)
        return [axes]
    start = max(0, start + whole.size) if start < 0 else min(start, whole.size)
    axes[dim] = divided(whole, [start, size, whole.size - start - size])[1]
    return [axes]


def _split(flow: Flow, args: Sequence[Any], result: Any) -> list[Axes]:
    axes = flow.axes(args[0])
    dim = args[2] or 0
    outputs = outputs_of(result)
    sizes = [output.shape[dim] for output in outputs]
    if isinstance(args[1], int) and len(set(sizes)) == 1 and len(sizes) > 1:
        # Equal parts, as `chunk` makes them, must stay equal.
        turns, part = grouped([axes[dim]], [len(sizes), sizes[0]])
        flow.whole([turns], PLACES)
        parts = [part] * len(sizes)
    else:
        parts = divided(axes[dim], sizes)
    place = dim % len(axes)
    return [[*axes[:place], part, *axes[place + 1 :]] for part in parts]


def _cat(flow: Flow, args: Sequence[Any], _result: Tensor) -> list[Axes]:
    given = [flow.axes(each) for each in args[0] if each.numel() or each.dim() > 1]
    dim = (args[1] or 0) % len(given[0])
    axes = []
    for place, own in enumerate(zip(*given, strict=True)):
        if place != dim:
            for other in own[1:]:
                flow.same(own[0], other)
        axes.append(sum_of(own) if place == dim else own[0])
    return [axes]


def _stack(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    given = [flow.axes(each) for each in args[0]]
    for own in zip(*given, strict=True):
        for other in own[1:]:
            flow.same(own[0], other)
    axes = list(given[0])
    dim = (args[1] or 0) % result.dim()
    axes.insert(dim, Factor(len(given), whole=f"its channels {PLACES} in {flow.place()}"))
    return [axes]


def _index(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    """Follow ``x[i, j]`` with tensors of indices, and ``x[i, j] = y``."""
    axes = flow.axes(args[0])
    indices = list(args[1]) + [None] * (len(axes) - len(args[1]))
    indexed = [place for place, index in enumerate(indices) if index is not None]
    flow.whole([axes[place] for place in indexed], PLACES)
    if result.shape == args[0].shape and len(args) > 2:  # noqa: PLR2004  # it assigns
        return [axes]
    shape = broadcast(*(indices[place].shape for place in indexed))
    new = [new_axis(size) for size in shape]
    for place in indexed:
        for own, other in zip(new[::-1], reversed(flow.axes(indices[place])), strict=False):
            if own.size == other.size:
                flow.same(own, other)
    kept = dropped(axes, indexed)
    together = indexed == list(range(indexed[0], indexed[-1] + 1))
    first = indexed[0] if together else 0
    return [[*kept[:first], *new, *kept[first:]]]


def _index_select(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    axes = list(flow.axes(args[0]))
    flow.whole([axes[args[1]]], PLACES)
    axes[args[1]] = new_axis(result.shape[args[1]])
    return [axes]


def _gather(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    axes = list(flow.axes(args[0]))
    flow.whole([axes[args[1]]], PLACES)
    found = list(flow.axes(args[2]))
    for place, (own, other) in enumerate(zip(axes, found, strict=True)):
        if place != args[1] % len(axes) and own.size == other.size == result.shape[place]:
            flow.same(own, other)
    return [found]


def _embedding(flow: Flow, args: Sequence[Any], _result: Tensor) -> list[Axes]:
    table = flow.axes(args[0])
    flow.whole([table[0]], PLACES)
    return [[*flow.axes(args[1]), table[1]]]


def _roll(flow: Flow, args: Sequence[Any], _result: Tensor) -> list[Axes]:
    axes = flow.axes(args[0])
    moved = args[2] or range(len(axes))
    flow.whole([axes[place] for place in moved], "change their places")
    return [axes]


def _padded(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    axes = list(flow.axes(args[0]))
    for turn in range(len(args[1]) // 2):
        before, after = args[1][2 * turn : 2 * turn + 2]
        place = len(axes) - 1 - turn
        if not before and not after:
            continue
        if is_whole(axes[place]) or before < 0 or after < 0:
            flow.whole([axes[place]], PLACES)
            axes[place] = new_axis(result.shape[place])
        else:
            axes[place] = sum_of([new_axis(before), axes[place], new_axis(after)])
    return [axes]


def _pixel_shuffle(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    """Channels (c, r, r) become c, and pixels (h, r) and (w, r)."""
    axes, times = flow.axes(args[0]), args[1]
    channels, *inner = grouped([axes[-3]], [axes[-3].size // times**2, times, times])
    flow.whole(inner, "become pixels")
    return [[*axes[:-3], channels, *(new_axis(size) for size in result.shape[-2:])]]


def _pixel_unshuffle(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    axes, times = flow.axes(args[0]), args[1]
    channels = product_of([axes[-3], new_axis(times), new_axis(times)])
    return [[*axes[:-3], channels, *(new_axis(size) for size in result.shape[-2:])]]


def _unfolded(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    """Patches become columns: (n, c, h, w) to (n, c * kh * kw, patches)."""
    axes, kernel = flow.axes(args[0]), prod(args[1])
    return [[axes[0], product_of([axes[1], new_axis(kernel)]), new_axis(result.shape[2])]]


def _folded(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    axes, kernel = flow.axes(args[0]), prod(args[2])
    channels, inner = grouped([axes[1]], [axes[1].size // kernel, kernel])
    flow.whole([inner], "become pixels")
    return [[axes[0], channels, *(new_axis(size) for size in result.shape[2:])]]


MOVING: dict[str, Rule] = {
    **dict.fromkeys(("view", "unsafe_view", "reshape_alias", "reshape"), _view),
    "permute": _permute,
    **dict.fromkeys(("transpose", "t"), _transpose),
    **dict.fromkeys(("squeeze", "unsqueeze"), _squeeze),
    "expand": _expand,
    "repeat": _repeat,
    "select": _select,
    "unbind": _unbind,
    "slice": _slice,
    **dict.fromkeys(("split", "split_with_sizes"), _split),
    "cat": _cat,
    "stack": _stack,
    **dict.fromkeys(("index", "index_put"), _index),
    "index_select": _index_select,
    "gather": _gather,
    "embedding": _embedding,
    "roll": _roll,
    "constant_pad_nd": _padded,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "im2col": _unfolded,
    "col2im": _folded,
}
