"""Recognise the calls of a graph as operators that lean training can run."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.engines.activations import Activation
from dse.engines.dense import Convolution, Linear
from dse.engines.graph import Node, Ref
from dse.engines.norms import BatchNorm, BatchNormCall, LayerNorm
from dse.engines.op import Modules, Op
from dse.engines.opaque import Opaque
from dse.engines.shapes import (
    Add,
    Flatten,
    GlobalPool,
    Identity,
    MaxPool,
    Multiply,
    Permute,
    Scale,
)

Shapes = Mapping[str, torch.Size]
_IMAGE = 4  # dimensions of a batch of images


@dataclass(frozen=True)
class Found:
    """An operator whose inputs are still named.

    Attributes:
        op: The operator, without inputs.
        reads: Names of the nodes that it reads.
        name: Name of the node.
    """

    op: Op
    reads: tuple[str, ...]
    name: str


class _UnknownError(Exception):
    """The call isn't recognised."""


@dataclass(frozen=True)
class _Context:
    """What recognition knows beside the node."""

    modules: Modules
    shapes: Shapes
    tensors: Mapping[str, str]  # names of nodes that are parameters or buffers

    def tensor(self, value: Any) -> str | None:
        """Return the dotted name of a parameter, None for None."""
        if value is None:
            return None
        if isinstance(value, Ref) and value.name in self.tensors:
            return self.tensors[value.name]
        raise _UnknownError


def recognise(
    node: Node, *, modules: Modules, shapes: Shapes, tensors: Mapping[str, str]
) -> Found | None:
    """Recognise one call.

    Args:
        node: The call.
        modules: The network's modules by name.
        shapes: Shapes of results.
        tensors: Dotted names of the parameters and buffers, by the name of their node.

    Returns:
        The operator, or None if stock PyTorch must run the call.
    """
    context = _Context(modules, shapes, tensors)
    if node.name not in shapes:
        return None
    try:
        op, reads = _found(node, context)
    except _UnknownError:
        return None
    if any(name in tensors or name not in shapes for name in reads):
        return None
    return Found(op, reads, node.name)


def _found(node: Node, context: _Context) -> tuple[Op, tuple[str, ...]]:
    if node.kind == "module":
        module = context.modules[node.target]
        rule = _MODULES.get(type(module)) or _derived(module)
        if rule is None or node.kwargs or len(node.args) != 1:
            raise _UnknownError
        return rule(module, node.target, node, context), _single(node)
    function = (_METHODS if node.kind == "method" else _FUNCTIONS).get(node.target)
    if function is not None:
        return function(node, context)
    return _opaque(node, context)


def _single(node: Node) -> tuple[str, ...]:
    if not isinstance(node.args[0], Ref):
        raise _UnknownError
    return (node.args[0].name,)


def _derived(module: nn.Module) -> "_ModuleRule | None":
    """Return the rule of the class that a module's forward comes from."""
    for kind, rule in _MODULES.items():
        if isinstance(module, kind) and type(module).forward is kind.forward:
            return rule
    return None


_ModuleRule = Callable[[Any, str, Node, _Context], Op]


def _own(module: nn.Module, path: str) -> tuple[str | None, ...]:
    """Return the dotted names of weight and bias, None where a module has none."""
    return tuple(
        None if getattr(module, name) is None else f"{path}.{name}" for name in ("weight", "bias")
    )


def _convolution(module: nn.Conv2d, path: str, _node: Node, _context: _Context) -> Op:
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise _UnknownError
    return Convolution(
        (),
        _own(module, path),
        stride=tuple(module.stride),
        padding=tuple(module.padding),
        dilation=tuple(module.dilation),
        groups=module.groups,
    )


def _linear(module: nn.Linear, path: str, _node: Node, _context: _Context) -> Op:
    return Linear((), _own(module, path))


def _batch_norm(module: nn.BatchNorm2d, path: str, _node: Node, _context: _Context) -> Op:
    return BatchNorm((), _own(module, path), module=path)


def _layer_norm(module: nn.LayerNorm, path: str, _node: Node, _context: _Context) -> Op:
    return LayerNorm((), _own(module, path), shape=tuple(module.normalized_shape), eps=module.eps)


def _act(name: str, *options: Any) -> _ModuleRule:
    return lambda *_: Activation((), name=name, options=options)


def _hardtanh(module: nn.Hardtanh, *_: Any) -> Op:
    return Activation((), name="hardtanh", options=(module.min_val, module.max_val))


def _gelu(module: nn.GELU, *_: Any) -> Op:
    return Activation((), name="gelu", options=(module.approximate,))


def _dropout(module: nn.Dropout, *_: Any) -> Op:
    if not module.training or module.p == 0:
        return Identity(())
    run = partial(_dropped, probability=module.p)
    return Opaque((), name="dropout", run=run)


def _dropped(_modules: Modules, value: Tensor, *, probability: float) -> Tensor:
    return functional.dropout(value, probability, training=True)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _max_pool(module: nn.MaxPool2d, _path: str, _node: Node, _context: _Context) -> Op:
    kernel = _pair(module.kernel_size)
    if module.return_indices or kernel[0] * kernel[1] > 2**8:
        raise _UnknownError
    return MaxPool(
        (),
        kernel=kernel,
        stride=_pair(module.stride),
        padding=_pair(module.padding),
        dilation=_pair(module.dilation),
        ceil=module.ceil_mode,
    )


def _adaptive_pool(module: nn.AdaptiveAvgPool2d, _path: str, node: Node, context: _Context) -> Op:
    return _to_one(module.output_size, node, context)


def _to_one(size: Any, node: Node, context: _Context) -> Op:
    if size not in (1, (1, 1), [1, 1]) or len(context.shapes[node.args[0].name]) != _IMAGE:
        raise _UnknownError
    return GlobalPool(())


def _flatten(module: nn.Flatten, *_: Any) -> Op:
    return Flatten((), start=module.start_dim, end=module.end_dim)


def _module_run(modules: Modules, value: Tensor, *, path: str) -> Tensor:
    return modules[path](value)  # type: ignore[no-any-return]


def _cheap(module: nn.Module, path: str, _node: Node, _context: _Context) -> Op:
    """A layer of PyTorch's that has no parameters, draws nothing and is quickly run again."""
    if getattr(module, "inplace", False):
        raise _UnknownError
    return Opaque((), name=path, run=partial(_module_run, path=path), random=False)


_MODULES: dict[type[nn.Module], _ModuleRule] = {
    nn.Conv2d: _convolution,
    nn.Linear: _linear,
    nn.BatchNorm2d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.ReLU: _act("relu"),
    nn.ReLU6: _hardtanh,
    nn.Hardtanh: _hardtanh,
    nn.Sigmoid: _act("sigmoid"),
    nn.Tanh: _act("tanh"),
    nn.SiLU: _act("silu"),
    nn.Hardswish: _act("hardswish"),
    nn.Hardsigmoid: _act("hardsigmoid"),
    nn.GELU: _gelu,
    nn.Dropout: _dropout,
    nn.Identity: lambda *_: Identity(()),
    nn.MaxPool2d: _max_pool,
    nn.AdaptiveAvgPool2d: _adaptive_pool,
    nn.Flatten: _flatten,
    **dict.fromkeys(
        (nn.AvgPool2d, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.Mish, nn.Softplus, nn.Softsign,
         nn.LogSigmoid, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.ZeroPad2d),
        _cheap,
    ),
}  # fmt: skip


_FunctionRule = Callable[[Node, _Context], tuple[Op, tuple[str, ...]]]


def _argument(node: Node, place: int, name: str, default: Any = None) -> Any:
    """Return an argument of a call, which is given by its place or by its name."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _unary(name: str) -> _FunctionRule:
    def rule(node: Node, _context: _Context) -> tuple[Op, tuple[str, ...]]:
        return Activation((), name=name), _single(node)

    return rule


def _f_hardtanh(node: Node, _context: _Context) -> tuple[Op, tuple[str, ...]]:
    bounds = (_argument(node, 1, "min_val", -1.0), _argument(node, 2, "max_val", 1.0))
    return Activation((), name="hardtanh", options=bounds), _single(node)


def _f_relu6(node: Node, _context: _Context) -> tuple[Op, tuple[str, ...]]:
    return Activation((), name="hardtanh", options=(0.0, 6.0)), _single(node)


def _f_gelu(node: Node, _context: _Context) -> tuple[Op, tuple[str, ...]]:
    how = node.kwargs.get("approximate", "none")
    return Activation((), name="gelu", options=(how,)), _single(node)


def _f_dropout(node: Node, _context: _Context) -> tuple[Op, tuple[str, ...]]:
    probability, training = (
        _argument(node, 1, "p", 0.5),
        _argument(node, 2, "training", default=True),
    )
    if not training or probability == 0:
        return Identity(()), _single(node)
    run = partial(_dropped, probability=probability)
    return Opaque((), name="dropout", run=run), _single(node)


def _f_batch_norm(node: Node, context: _Context) -> tuple[Op, tuple[str, ...]]:
    mean, variance = (context.tensor(_argument(node, *at)) for at in _RUNNING)
    weight, bias = (context.tensor(_argument(node, *at)) for at in ((3, "weight"), (4, "bias")))
    trains = _argument(node, 5, "training", default=False)
    momentum, eps = _argument(node, 6, "momentum", 0.1), _argument(node, 7, "eps", 1e-5)
    if not isinstance(trains, bool) or not isinstance(momentum, float):
        raise _UnknownError
    if len(context.shapes[node.name]) != _IMAGE:
        raise _UnknownError
    op = BatchNormCall(
        (),
        (weight, bias),
        mean=mean,
        variance=variance,
        trains=trains,
        momentum=momentum,
        eps=eps,
    )
    return op, _single(node)


_RUNNING = ((1, "running_mean"), (2, "running_var"))


def _f_layer_norm(node: Node, context: _Context) -> tuple[Op, tuple[str, ...]]:
    shape = _argument(node, 1, "normalized_shape")
    tensors = tuple(context.tensor(_argument(node, *at)) for at in ((2, "weight"), (3, "bias")))
    if not all(isinstance(each, int) for each in shape):
        raise _UnknownError
    eps = _argument(node, 4, "eps", 1e-5)
    return LayerNorm((), tensors, shape=tuple(shape), eps=eps), _single(node)


def _f_linear(node: Node, context: _Context) -> tuple[Op, tuple[str, ...]]:
    tensors = tuple(context.tensor(_argument(node, *at)) for at in ((1, "weight"), (2, "bias")))
    return Linear((), tensors), _single(node)


def _f_convolution(node: Node, context: _Context) -> tuple[Op, tuple[str, ...]]:
    tensors = tuple(context.tensor(_argument(node, *at)) for at in ((1, "weight"), (2, "bias")))
    stride, padding, dilation = (
        _argument(node, place, name, default)
        for place, name, default in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
    )
    if isinstance(padding, str):
        raise _UnknownError
    op = Convolution(
        (),
        tensors,
        stride=_pair(stride),
        padding=_pair(padding),
        dilation=_pair(dilation),
        groups=_argument(node, 6, "groups", 1),
    )
    return op, _single(node)


def _f_adaptive_pool(node: Node, context: _Context) -> tuple[Op, tuple[str, ...]]:
    return _to_one(_argument(node, 1, "output_size"), node, context), _single(node)


def _f_mean(node: Node, context: _Context) -> tuple[Op, tuple[str, ...]]:
    dims, keeps = _argument(node, 1, "dim"), _argument(node, 2, "keepdim", default=False)
    before = len(context.shapes.get(node.args[0].name, ()))
    if before != _IMAGE or not isinstance(dims, (tuple, list)):
        raise _UnknownError
    if sorted(dim % before for dim in dims) != [2, 3]:
        raise _UnknownError
    return GlobalPool((), keeps=keeps), _single(node)


def _f_flatten(node: Node, _context: _Context) -> tuple[Op, tuple[str, ...]]:
    start, end = _argument(node, 1, "start_dim", 0), _argument(node, 2, "end_dim", -1)
    return Flatten((), start=start, end=end), _single(node)


def _f_permute(node: Node, _context: _Context) -> tuple[Op, tuple[str, ...]]:
    order = node.args[1:] if len(node.args) > 2 else _argument(node, 1, "dims")  # noqa: PLR2004
    if isinstance(order, tuple) and len(order) == 1:
        order = order[0]
    if not isinstance(order, (tuple, list)) or not all(isinstance(each, int) for each in order):
        raise _UnknownError
    return Permute((), order=tuple(order)), _single(node)


def _two(node: Node, context: _Context) -> tuple[Ref, Ref]:
    known = {"alpha", "out"} & set(node.kwargs)
    if known or len(node.args) != 2 or not all(isinstance(each, Ref) for each in node.args):  # noqa: PLR2004
        raise _UnknownError
    first, second = node.args
    if first.name not in context.shapes or second.name not in context.shapes:
        raise _UnknownError
    return first, second


def _f_add(node: Node, context: _Context) -> tuple[Op, tuple[str, ...]]:
    first, second = _two(node, context)
    if {first.name, second.name} & set(context.tensors):
        raise _UnknownError
    if context.shapes[first.name] != context.shapes[second.name]:
        raise _UnknownError
    return Add(()), (first.name, second.name)


def _f_multiply(node: Node, context: _Context) -> tuple[Op, tuple[str, ...]]:
    first, second = _two(node, context)
    if context.shapes[first.name] != context.shapes[node.name] or first.name in context.tensors:
        first, second = second, first
    if context.shapes[first.name] != context.shapes[node.name] or first.name in context.tensors:
        raise _UnknownError
    if second.name in context.tensors:
        return Scale((), (context.tensors[second.name],)), (first.name,)
    return Multiply(()), (first.name, second.name)


def _opaque(node: Node, context: _Context) -> tuple[Op, tuple[str, ...]]:
    """A function of one value and constants, from a library: stochastic depth, for instance.

    It must return a tensor of the same shape, so that it is as cheap as an activation.
    """
    if node.kind != "function":
        raise _UnknownError
    names = node.reads()
    if len(names) != 1 or names[0] in context.tensors or node.kwargs.get("inplace"):
        raise _UnknownError
    if context.shapes.get(names[0]) != context.shapes[node.name]:
        raise _UnknownError
    if node.target in _HEAVY or getattr(node.target, "__name__", "").endswith("_"):
        raise _UnknownError
    run = partial(_call, node=node, name=names[0])
    return Opaque((), name=node.name, run=run), (names[0],)


def _call(modules: Modules, value: Tensor, *, node: Node, name: str) -> Tensor:
    return node.call(modules, {name: value})  # type: ignore[no-any-return]


_HEAVY = (functional.scaled_dot_product_attention, operator.matmul, torch.matmul, torch.bmm)


_FUNCTIONS: dict[Any, _FunctionRule] = {
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

_METHODS: dict[str, _FunctionRule] = {
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


def named(found: Sequence[Found], start: str) -> tuple[Op, ...]:
    """Give operators the numbers of the values that they read.

    Args:
        found: Operators in order, of which each reads ``start`` or earlier ones.
        start: Name of value 0.
    """
    numbers = {start: 0, **{each.name: place + 1 for place, each in enumerate(found)}}
    ops = []
    for each in found:
        inputs = tuple(numbers[name] for name in each.reads)
        if isinstance(each.op, Add):  # the newer value first: it may be overwritten
            inputs = tuple(sorted(inputs, reverse=True))
        ops.append(replace(each.op, inputs=inputs))
    return tuple(ops)
