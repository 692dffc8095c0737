"""Rules that recognise calls of functions and of tensors' methods."""

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dse.engines.activations import Activation
from dse.engines.context import (
    IMAGE_DIMENSIONS,
    Context,
    UnknownCallError,
    dropped,
    pair,
    single,
    to_one,
)
from dse.engines.dense import Convolution, Linear
from dse.engines.graph import Node, Ref
from dse.engines.norms import BatchNormCall, LayerNorm
from dse.engines.op import Modules, Op
from dse.engines.opaque import Opaque
from dse.engines.shapes import Add, Flatten, GlobalPool, Identity, Multiply, Permute, Scale

FunctionRule = Callable[[Node, Context], tuple[Op, tuple[str, ...]]]


def _argument(node: Node, place: int, name: str, default: Any = None) -> Any:
    """Return an argument of a call, which is given by its place or by its name."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _unary(name: str) -> FunctionRule:
    def rule(node: Node, context: Context) -> tuple[Op, tuple[str, ...]]:
        return Activation((), name=name, overwrites=node.overwrites(context.modules)), single(node)

    return rule


def _f_hardtanh(node: Node, context: Context) -> tuple[Op, tuple[str, ...]]:
    bounds = (_argument(node, 1, "min_val", -1.0), _argument(node, 2, "max_val", 1.0))
    return _bounded(bounds, node, context)


def _f_relu6(node: Node, context: Context) -> tuple[Op, tuple[str, ...]]:
    return _bounded((0.0, 6.0), node, context)


def _bounded(bounds: tuple[Any, Any], node: Node, context: Context) -> tuple[Op, tuple[str, ...]]:
    overwrites = node.overwrites(context.modules)
    return Activation((), name="hardtanh", options=bounds, overwrites=overwrites), single(node)


def _f_gelu(node: Node, _context: Context) -> tuple[Op, tuple[str, ...]]:
    how = node.kwargs.get("approximate", "none")
    return Activation((), name="gelu", options=(how,)), single(node)


def _f_dropout(node: Node, _context: Context) -> tuple[Op, tuple[str, ...]]:
    probability, training = (
        _argument(node, 1, "p", 0.5),
        _argument(node, 2, "training", default=True),
    )
    if not training or probability == 0:
        return Identity(()), single(node)
    run = partial(dropped, probability=probability)
    return Opaque((), name="dropout", run=run), single(node)


def _f_batch_norm(node: Node, context: Context) -> tuple[Op, tuple[str, ...]]:
    mean, variance = (context.tensor(_argument(node, *at)) for at in _RUNNING)
    weight, bias = (context.tensor(_argument(node, *at)) for at in ((3, "weight"), (4, "bias")))
    trains = _argument(node, 5, "training", default=False)
    momentum, eps = _argument(node, 6, "momentum", 0.1), _argument(node, 7, "eps", 1e-5)
    if not isinstance(trains, bool) or not isinstance(momentum, float):
        raise UnknownCallError
    if len(context.shapes[node.name]) != IMAGE_DIMENSIONS:
        raise UnknownCallError
    op = BatchNormCall(
        (),
        (weight, bias),
        mean=mean,
        variance=variance,
        trains=trains,
        momentum=momentum,
        eps=eps,
    )
    return op, single(node)


_RUNNING = ((1, "running_mean"), (2, "running_var"))


def _f_layer_norm(node: Node, context: Context) -> tuple[Op, tuple[str, ...]]:
    shape = _argument(node, 1, "normalized_shape")
    tensors = tuple(context.tensor(_argument(node, *at)) for at in ((2, "weight"), (3, "bias")))
    if not all(isinstance(each, int) for each in shape):
        raise UnknownCallError
    eps = _argument(node, 4, "eps", 1e-5)
    return LayerNorm((), tensors, shape=tuple(shape), eps=eps), single(node)


def _f_linear(node: Node, context: Context) -> tuple[Op, tuple[str, ...]]:
    tensors = tuple(context.tensor(_argument(node, *at)) for at in ((1, "weight"), (2, "bias")))
    return Linear((), tensors), single(node)


def _f_convolution(node: Node, context: Context) -> tuple[Op, tuple[str, ...]]:
    tensors = tuple(context.tensor(_argument(node, *at)) for at in ((1, "weight"), (2, "bias")))
    stride, padding, dilation = (
        _argument(node, place, name, default)
        for place, name, default in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
    )
    if isinstance(padding, str):
        raise UnknownCallError
    op = Convolution(
        (),
        tensors,
        stride=pair(stride),
        padding=pair(padding),
        dilation=pair(dilation),
        groups=_argument(node, 6, "groups", 1),
    )
    return op, single(node)


def _f_adaptive_pool(node: Node, context: Context) -> tuple[Op, tuple[str, ...]]:
    return to_one(_argument(node, 1, "output_size"), node, context), single(node)


def _f_mean(node: Node, context: Context) -> tuple[Op, tuple[str, ...]]:
    dims, keeps = _argument(node, 1, "dim"), _argument(node, 2, "keepdim", default=False)
    before = len(context.shapes.get(node.args[0].name, ()))
    if before != IMAGE_DIMENSIONS or not isinstance(dims, (tuple, list)):
        raise UnknownCallError
    if sorted(dim % before for dim in dims) != [2, 3]:
        raise UnknownCallError
    return GlobalPool((), keeps=keeps), single(node)


def _f_flatten(node: Node, _context: Context) -> tuple[Op, tuple[str, ...]]:
    start, end = _argument(node, 1, "start_dim", 0), _argument(node, 2, "end_dim", -1)
    return Flatten((), start=start, end=end), single(node)


def _f_permute(node: Node, _context: Context) -> tuple[Op, tuple[str, ...]]:
    order = node.args[1:] if len(node.args) > 2 else _argument(node, 1, "dims")  # noqa: PLR2004
    if isinstance(order, tuple) and len(order) == 1:
        order = order[0]
    if not isinstance(order, (tuple, list)) or not all(isinstance(each, int) for each in order):
        raise UnknownCallError
    return Permute((), order=tuple(order)), single(node)


def _two(node: Node, context: Context) -> tuple[Ref, Ref]:
    known = {"alpha", "out"} & set(node.kwargs)
    if known or len(node.args) != 2 or not all(isinstance(each, Ref) for each in node.args):  # noqa: PLR2004
        raise UnknownCallError
    first, second = node.args
    if first.name not in context.shapes or second.name not in context.shapes:
        raise UnknownCallError
    return first, second


def _f_add(node: Node, context: Context) -> tuple[Op, tuple[str, ...]]:
    first, second = _two(node, context)
    if {first.name, second.name} & set(context.tensors):
        raise UnknownCallError
    if context.shapes[first.name] != context.shapes[second.name]:
        raise UnknownCallError
    target = 0 if node.overwrites(context.modules) else None
    return Add((), target=target), (first.name, second.name)


def _f_multiply(node: Node, context: Context) -> tuple[Op, tuple[str, ...]]:
    first, second = _two(node, context)
    if context.shapes[first.name] != context.shapes[node.name] or first.name in context.tensors:
        first, second = second, first
    if context.shapes[first.name] != context.shapes[node.name] or first.name in context.tensors:
        raise UnknownCallError
    overwrites = node.overwrites(context.modules)
    if second.name in context.tensors:
        scale = Scale((), (context.tensors[second.name],), overwrites=overwrites)
        return scale, (first.name,)
    return Multiply((), overwrites=overwrites), (first.name, second.name)


def opaque(node: Node, context: Context) -> tuple[Op, tuple[str, ...]]:
    """A function of one value and constants, from a library: stochastic depth, for instance.

    It must return a tensor of the same shape, so that it is as cheap as an activation.
    """
    if node.kind != "function":
        raise UnknownCallError
    names = node.reads()
    if len(names) != 1 or names[0] in context.tensors or node.overwrites(context.modules):
        raise UnknownCallError
    if context.shapes.get(names[0]) != context.shapes[node.name] or node.target in _HEAVY:
        raise UnknownCallError
    run = partial(_call, node=node, name=names[0])
    return Opaque((), name=node.name, run=run), (names[0],)


def _call(modules: Modules, value: Tensor, *, node: Node, name: str) -> Tensor:
    return node.call(modules, {name: value})  # type: ignore[no-any-return]


_HEAVY = (functional.scaled_dot_product_attention, operator.matmul, torch.matmul, torch.bmm)


FUNCTIONS: dict[Any, FunctionRule] = {
    functional.relu: _unary("relu"),
    torch.relu: _unary("relu"),
    functional.relu6: _f_relu6,
    functional.hardtanh: _f_hardtanh,
    functional.sigmoid: _unary("sigmoid"),
    torch.sigmoid: _unary("sigmoid"),
    torch.tanh: _unary("tanh"),
    functional.silu: _unary("silu"),
    functional.hardswish: _unary("hardswish"),
    functional.hardsigmoid: _unary("hardsigmoid"),
    functional.gelu: _f_gelu,
    functional.dropout: _f_dropout,
    functional.batch_norm: _f_batch_norm,
    functional.layer_norm: _f_layer_norm,
    functional.linear: _f_linear,
    functional.conv2d: _f_convolution,
    functional.adaptive_avg_pool2d: _f_adaptive_pool,
    torch.flatten: _f_flatten,
    torch.permute: _f_permute,
    torch.mean: _f_mean,
    **dict.fromkeys((operator.add, operator.iadd, torch.add), _f_add),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul), _f_multiply),
}

METHODS: dict[str, FunctionRule] = {
    "relu": _unary("relu"),
    "sigmoid": _unary("sigmoid"),
    "tanh": _unary("tanh"),
    "mean": _f_mean,
    "flatten": _f_flatten,
    "permute": _f_permute,
    "add": _f_add,
    "add_": _f_add,
    "mul": _f_multiply,
    "mul_": _f_multiply,
}
