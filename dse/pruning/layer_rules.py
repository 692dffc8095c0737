"""Rules of operators that layers are made of: products, convolutions, norms and attention."""

from collections.abc import Sequence
from math import lcm
from typing import Any

from torch import Tensor

from dse.pruning.axis_tools import Axes, beside, new_axis, outputs_of, tensors_of
from dse.pruning.dimension_flow import Flow, Rule
from dse.pruning.factor_division import grouped
from dse.pruning.factors import Factor, UnfollowedError, keep_whole, leading_whole, product_of


def _product(flow: Flow, args: Sequence[Any], _result: Tensor) -> list[Axes]:
    """Follow products of matrices, with or without a batch of them and a tensor to add."""
    *added, left, right = tensors_of(args)[:3]
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
    return [[batch, out_axis, *(new_axis(size) for size in result.shape[2:])]]


def _blocks(flow: Flow, channels: Factor, blocks: int) -> tuple[Factor, Factor]:
    """Divide channels into the blocks of a layer. They stay whole if blocks can't shrink evenly."""
    finer = lcm(blocks, leading_whole(channels))
    try:
        if finer == blocks or channels.size % finer:
            turns, inner = grouped([channels], [blocks, channels.size // blocks])
        else:  # other layers divide the same channels into other blocks
            slow, inner = grouped([channels], [finer, channels.size // finer])
            flow.whole([slow], f"are divided into {finer} groups")
            turns, inner = new_axis(blocks), product_of([new_axis(finer // blocks), inner])
    except UnfollowedError:
        flow.whole([channels], f"are divided into {blocks} groups that can't shrink evenly")
        return new_axis(blocks), new_axis(channels.size // blocks)
    return turns, inner


def _normalised(flow: Flow, args: Sequence[Any], result: Any) -> list[Axes]:
    """Follow batch normalisation, whose channels are the second axis."""
    axes = flow.axes(args[0])
    for tensor in tensors_of(args[1:]):
        flow.same(axes[1], flow.axes(tensor)[0])
    return beside(axes, result)


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
    for tensor in tensors_of([weight, bias]):
        flow.same(axes[1], flow.axes(tensor)[0])
    if 1 < blocks < axes[1].size:
        turns, _ = _blocks(flow, axes[1], blocks)
        flow.whole([turns], f"are normalised in {blocks} groups")
    return beside(axes, result)


def _layer_norm(flow: Flow, args: Sequence[Any], result: Any) -> list[Axes]:
    axes = flow.axes(args[0])
    for tensor in tensors_of(args[2:4]):
        own = flow.axes(tensor)
        for one, two in zip(axes[len(axes) - len(own) :], own, strict=True):
            flow.same(one, two)
    return beside(axes, result)


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
    _, *more = outputs_of(result)
    return [[*q[:-1], v[-1]], *([new_axis(size) for size in output.shape] for output in more)]


LAYERS: dict[str, Rule] = {
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
