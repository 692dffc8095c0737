"""What each operator tells about the axes of its tensors."""

from collections.abc import Iterable, Sequence
from math import lcm, prod
from typing import Any

import torch
from torch import Tensor

from dse.pruning.dimension_flow import Flow, Rule
from dse.pruning.factors import (
    Factor,
    UnfollowedError,
    divided,
    grouped,
    is_whole,
    keep_whole,
    leading_whole,
    product_of,
    sum_of,
)

Axes = Sequence[Factor]
_PLACES = "are told apart by their places"


def _new(size: int) -> Factor:
    """An axis of positions that are never removed, such as pixels."""
    return Factor(size, whole="")


def _tensors(args: Sequence[Any]) -> list[Tensor]:
    return [arg for arg in args if isinstance(arg, Tensor)]


def others(flow: Flow, args: Sequence[Any], result: Any) -> list[Axes]:
    """Follow an operator that has no rule of its own.

    If its result has the shape that its inputs broadcast to, it works element by element. If only
    the size of feature maps changes, it works channel by channel. Otherwise nothing is known.
    """
    outputs = _outputs(result)
    given = _tensors(_flattened(args))
    if not given:
        return [[Factor(size) for size in output.shape] for output in outputs]
    return [_one(flow, given, output) for output in outputs]


def _one(flow: Flow, given: Sequence[Tensor], output: Tensor) -> Axes:
    try:
        shape = _broadcast(*(tensor.shape for tensor in given))
    except RuntimeError:
        shape = None
    if shape == output.shape:
        return _elementwise(flow, given, output)
    first = given[0]
    pooled = first.dim() == output.dim() > 2 and first.shape[:2] == output.shape[:2]  # noqa: PLR2004
    axes = flow.axes(first)
    if pooled and all(is_whole(axis) for axis in axes[2:]):
        return [*axes[:2], *(_new(size) for size in output.shape[2:])]
    for tensor in given:
        flow.whole(flow.axes(tensor), f"go through {flow.operator}, which isn't followed,")
    return [_new(size) for size in output.shape]


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
    return [[next(places) if size > 1 else _new(1) for size in result.shape]]


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
    own = [_new(1)] * (result.dim() - len(axes)) + list(axes)
    return [
        [
            axis if times == 1 else product_of([Factor(times), axis])
            for axis, times in zip(own, args[1], strict=True)
        ]
    ]


def _dropped(axes: Axes, places: Iterable[int]) -> list[Factor]:
    gone = {place % len(axes) for place in places}
    return [axis for place, axis in enumerate(axes) if place not in gone]


def _select(flow: Flow, args: Sequence[Any], _result: Tensor) -> list[Axes]:
    axes = flow.axes(args[0])
    flow.whole([axes[args[1]]], _PLACES)
    return [_dropped(axes, [args[1]])]


def _unbind(flow: Flow, args: Sequence[Any], result: Any) -> list[Axes]:
    axes = flow.axes(args[0])
    flow.whole([axes[args[1] or 0]], _PLACES)
    return [_dropped(axes, [args[1] or 0]) for _ in _outputs(result)]


def _slice(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    axes = list(flow.axes(args[0]))
    dim, start, _end, step = (args[1] or 0), args[2] or 0, args[3], args[4] or 1
    whole, size = axes[dim], result.shape[dim]
    if size == whole.size:
        return [axes]
    if step != 1:
        flow.whole([whole], _PLACES)
        axes[dim] = _new(size)
        return [axes]
    start = max(0, start + whole.size) if start < 0 else min(start, whole.size)
    axes[dim] = divided(whole, [start, size, whole.size - start - size])[1]
    return [axes]


def _split(flow: Flow, args: Sequence[Any], result: Any) -> list[Axes]:
    axes = flow.axes(args[0])
    dim = args[2] or 0
    outputs = _outputs(result)
    sizes = [output.shape[dim] for output in outputs]
    if isinstance(args[1], int) and len(set(sizes)) == 1 and len(sizes) > 1:
        # Equal parts, as `chunk` makes them, must stay equal.
        turns, part = grouped([axes[dim]], [len(sizes), sizes[0]])
        flow.whole([turns], _PLACES)
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
    axes.insert(dim, Factor(len(given), whole=f"its channels {_PLACES} in {flow.place()}"))
    return [axes]


def _index(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    """Follow ``x[i, j]`` with tensors of indices, and ``x[i, j] = y``."""
    axes = flow.axes(args[0])
    indices = list(args[1]) + [None] * (len(axes) - len(args[1]))
    indexed = [place for place, index in enumerate(indices) if index is not None]
    flow.whole([axes[place] for place in indexed], _PLACES)
    if result.shape == args[0].shape and len(args) > 2:  # noqa: PLR2004  # it assigns
        return [axes]
    shape = _broadcast(*(indices[place].shape for place in indexed))
    new = [_new(size) for size in shape]
    for place in indexed:
        for own, other in zip(new[::-1], reversed(flow.axes(indices[place])), strict=False):
            if own.size == other.size:
                flow.same(own, other)
    kept = _dropped(axes, indexed)
    together = indexed == list(range(indexed[0], indexed[-1] + 1))
    first = indexed[0] if together else 0
    return [[*kept[:first], *new, *kept[first:]]]


def _index_select(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    axes = list(flow.axes(args[0]))
    flow.whole([axes[args[1]]], _PLACES)
    axes[args[1]] = _new(result.shape[args[1]])
    return [axes]


def _gather(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    axes = list(flow.axes(args[0]))
    flow.whole([axes[args[1]]], _PLACES)
    found = list(flow.axes(args[2]))
    for place, (own, other) in enumerate(zip(axes, found, strict=True)):
        if place != args[1] % len(axes) and own.size == other.size == result.shape[place]:
            flow.same(own, other)
    return [found]


def _embedding(flow: Flow, args: Sequence[Any], _result: Tensor) -> list[Axes]:
    table = flow.axes(args[0])
    flow.whole([table[0]], _PLACES)
    return [[*flow.axes(args[1]), table[1]]]


def _along(flow: Flow, args: Sequence[Any], result: Any) -> list[Axes]:
    """Follow an operator whose results along some axes depend on all or on the order."""
    axes = flow.axes(args[0])
    places = [place for arg in args[1:] for place in _places(arg)]
    mixed = [axes[place] for place in places if -len(axes) <= place < len(axes)]
    flow.whole(mixed, f"are mixed or reordered by {flow.operator}")
    return [
        [
            axis if axis.size == size else _new(size)
            for axis, size in zip(axes, output.shape, strict=True)
        ]
        for output in _outputs(result)
    ]


def _roll(flow: Flow, args: Sequence[Any], _result: Tensor) -> list[Axes]:
    axes = flow.axes(args[0])
    moved = args[2] or range(len(axes))
    flow.whole([axes[place] for place in moved], "change their places")
    return [axes]


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
    gone = {place % len(axes) for place in places} if places else set(range(len(axes)))
    outputs: list[Axes] = []
    for output in _outputs(result):
        if output.dim() == len(axes):
            own = [_new(1) if place in gone else axis for place, axis in enumerate(axes)]
        else:
            own = _dropped(axes, gone)
        outputs.append(own)
    return outputs


def _product(flow: Flow, args: Sequence[Any], _result: Tensor) -> list[Axes]:
    """Follow products of matrices, with or without a batch of them and a tensor to add."""
    *added, left, right = _tensors(args)[:3]
    one, two = flow.axes(left), flow.axes(right)
    batch = one[:-2]
    for own, other in zip(batch, two[:-2], strict=True):
        flow.same(own, other)
    last = two[-1:] if len(two) > 1 else ()
    inner = two[-2] if len(two) > 1 else two[-1]
    flow.same(one[-1], inner)
    flow.read(right, inner)
    flow.read(left, inner)
    axes = [*batch, *one[len(batch) : -1], *last]
    for bias in added:
        for own, other in zip(axes[::-1], reversed(flow.axes(bias)), strict=False):
            if own.size == other.size:
                flow.same(own, other)
    return [axes]


def _convolution(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    x, weight, bias, transposed, blocks = args[0], args[1], args[2], args[6], args[8]
    given, own = flow.axes(x), flow.axes(weight)
    batch, channels, pixels = given[0], given[1], given[2:]
    for axis in (*pixels, *own[2:]):
        keep_whole(axis, f"its channels are pixels of {flow.place()}")
    out_axis, in_axis = (own[1], own[0]) if transposed else (own[0], own[1])
    if blocks > 1:
        turns, channels = _blocks(flow, channels, blocks)
        if transposed:
            across, in_axis = grouped([in_axis], [blocks, in_axis.size // blocks])
            out_axis = product_of([across, out_axis])
        else:
            across, _ = grouped([out_axis], [blocks, out_axis.size // blocks])
        flow.same(turns, across)
        if channels.size > 1 or transposed:
            flow.whole([turns], f"are divided into {blocks} groups")
    if channels.size > 1:
        flow.same(channels, in_axis)
        flow.read(weight, in_axis)
    if bias is not None:
        flow.same(flow.axes(bias)[0], out_axis)
    return [[batch, out_axis, *(_new(size) for size in result.shape[2:])]]


def _blocks(flow: Flow, channels: Factor, blocks: int) -> tuple[Factor, Factor]:
    """Divide channels into the blocks of a layer. They stay whole if blocks can't shrink evenly."""
    finer = lcm(blocks, leading_whole(channels))
    try:
        if finer == blocks or channels.size % finer:
            turns, inner = grouped([channels], [blocks, channels.size // blocks])
        else:  # other layers divide the same channels into other blocks
            slow, inner = grouped([channels], [finer, channels.size // finer])
            flow.whole([slow], f"are divided into {finer} groups")
            turns, inner = _new(blocks), product_of([_new(finer // blocks), inner])
    except UnfollowedError:
        flow.whole([channels], f"are divided into {blocks} groups that can't shrink evenly")
        return _new(blocks), _new(channels.size // blocks)
    return turns, inner


def _normalised(flow: Flow, args: Sequence[Any], result: Any) -> list[Axes]:
    """Follow batch normalisation, whose channels are the second axis."""
    axes = flow.axes(args[0])
    for tensor in _tensors(args[1:]):
        flow.same(axes[1], flow.axes(tensor)[0])
    return _beside(axes, result)


def _weight_norm(flow: Flow, args: Sequence[Any], _result: Any) -> list[Axes]:
    """Follow weights that are normalised to given norms, which keep one of their axes."""
    axes, norms = flow.axes(args[0]), flow.axes(args[1])
    for own, norm in zip(axes, norms, strict=True):
        if own.size == norm.size:
            flow.same(own, norm)
    return [axes, norms]


def _group_norm(flow: Flow, args: Sequence[Any], result: Any) -> list[Axes]:
    x, weight, bias, blocks = args[0], args[1], args[2], args[6]
    axes = flow.axes(x)
    for tensor in _tensors([weight, bias]):
        flow.same(axes[1], flow.axes(tensor)[0])
    if 1 < blocks < axes[1].size:
        turns, _ = _blocks(flow, axes[1], blocks)
        flow.whole([turns], f"are normalised in {blocks} groups")
    return _beside(axes, result)


def _layer_norm(flow: Flow, args: Sequence[Any], result: Any) -> list[Axes]:
    axes = flow.axes(args[0])
    for tensor in _tensors(args[2:4]):
        own = flow.axes(tensor)
        for one, two in zip(axes[len(axes) - len(own) :], own, strict=True):
            flow.same(one, two)
    return _beside(axes, result)


def _beside(axes: Axes, result: Any) -> list[Axes]:
    """The first result has the input's axes; the others hold statistics."""
    _, *more = _outputs(result)
    return [axes, *([_new(size) for size in output.shape] for output in more)]


def _padded(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    axes = list(flow.axes(args[0]))
    for turn in range(len(args[1]) // 2):
        before, after = args[1][2 * turn : 2 * turn + 2]
        place = len(axes) - 1 - turn
        if not before and not after:
            continue
        if is_whole(axes[place]) or before < 0 or after < 0:
            flow.whole([axes[place]], _PLACES)
            axes[place] = _new(result.shape[place])
        else:
            axes[place] = sum_of([_new(before), axes[place], _new(after)])
    return [axes]


def _pixel_shuffle(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    """Channels (c, r, r) become c, and pixels (h, r) and (w, r)."""
    axes, times = flow.axes(args[0]), args[1]
    channels, *inner = grouped([axes[-3]], [axes[-3].size // times**2, times, times])
    flow.whole(inner, "become pixels")
    return [[*axes[:-3], channels, *(_new(size) for size in result.shape[-2:])]]


def _pixel_unshuffle(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    axes, times = flow.axes(args[0]), args[1]
    channels = product_of([axes[-3], _new(times), _new(times)])
    return [[*axes[:-3], channels, *(_new(size) for size in result.shape[-2:])]]


def _unfolded(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    """Patches become columns: (n, c, h, w) to (n, c * kh * kw, patches)."""
    axes, kernel = flow.axes(args[0]), prod(args[1])
    return [[axes[0], product_of([axes[1], _new(kernel)]), _new(result.shape[2])]]


def _folded(flow: Flow, args: Sequence[Any], result: Tensor) -> list[Axes]:
    axes, kernel = flow.axes(args[0]), prod(args[2])
    channels, inner = grouped([axes[1]], [axes[1].size // kernel, kernel])
    flow.whole([inner], "become pixels")
    return [[axes[0], channels, *(_new(size) for size in result.shape[2:])]]


def _attention(flow: Flow, args: Sequence[Any], result: Any) -> list[Axes]:
    """Follow a fused kernel of scaled dot-product attention."""
    q, k, v = (flow.axes(each) for each in args[:3])
    pairs = [(q[-1], k[-1]), (k[-2], v[-2])]
    for place, own in enumerate(q[:-2]):
        for other in (k[place], v[place]):
            if own.size != other.size:  # each head of the keys serves several of the queries
                own = grouped([own], [other.size, own.size // other.size])[0]  # noqa: PLW2901
            pairs.append((own, other))
    for one, two in pairs:
        flow.same(one, two)
    _, *more = _outputs(result)
    return [[*q[:-1], v[-1]], *([_new(size) for size in output.shape] for output in more)]


def _broadcast(*shapes: torch.Size) -> torch.Size:
    return torch.Size(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def _outputs(result: Any) -> list[Tensor]:
    return _tensors([result]) if isinstance(result, Tensor) else _tensors(_flattened(result))


def _flattened(values: Any) -> list[Any]:
    if isinstance(values, (list, tuple)):
        return [inner for value in values for inner in _flattened(value)]
    return [values]


def _maybe_reduced(flow: Flow, args: Sequence[Any], result: Any) -> list[Axes]:
    """Follow a name that stands for a reduction, or, of two tensors, works element by element."""
    if len(_tensors(args)) > 1:
        return others(flow, args, result)
    return _reduced(flow, args, result)


RULES: dict[str, Rule] = {
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
    **dict.fromkeys(
        ("softmax", "log_softmax", "safe_softmax", "cumsum", "cumprod", "sort", "topk", "flip"),
        _along,
    ),
    "roll": _roll,
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
    **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot"), _product),
    "convolution": _convolution,
    **dict.fromkeys(
        (
            "native_batch_norm",
            "native_batch_norm_legit",
            "native_batch_norm_legit_no_training",
            "batch_norm_with_update",
        ),
        _normalised,
    ),
    "weight_norm_interface": _weight_norm,
    "native_group_norm": _group_norm,
    "native_layer_norm": _layer_norm,
    "constant_pad_nd": _padded,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "im2col": _unfolded,
    "col2im": _folded,
    **dict.fromkeys(
        (
            "scaled_dot_product_flash_attention_for_cpu",
            "scaled_dot_product_flash_attention",
            "scaled_dot_product_efficient_attention",
            "scaled_dot_product_fused_attention_overrideable",
        ),
        _attention,
    ),
}
