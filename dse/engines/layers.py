"""Rules that recognise PyTorch's own layers."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from dse.engines.activations import Activation
from dse.engines.context import Context, UnknownCallError, dropped, pair, to_one
from dse.engines.dense import Convolution, Linear
from dse.engines.graph import Node
from dse.engines.norms import BatchNorm, LayerNorm
from dse.engines.op import Modules, Op
from dse.engines.opaque import Opaque
from dse.engines.shapes import Flatten, Identity, MaxPool

ModuleRule = Callable[[Any, str, Node, Context], Op]


def _own(module: nn.Module, path: str) -> tuple[str | None, ...]:
    """Return the dotted names of weight and bias, None where a module has none."""
    return tuple(
        None if getattr(module, name) is None else f"{path}.{name}" for name in ("weight", "bias")
    )


def _convolution(module: nn.Conv2d, path: str, _node: Node, _context: Context) -> Op:
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise UnknownCallError
    return Convolution(
        (),
        _own(module, path),
        stride=tuple(module.stride),
        padding=tuple(module.padding),
        dilation=tuple(module.dilation),
        groups=module.groups,
    )


def _linear(module: nn.Linear, path: str, _node: Node, _context: Context) -> Op:
    return Linear((), _own(module, path))


def _batch_norm(module: nn.BatchNorm2d, path: str, _node: Node, _context: Context) -> Op:
    return BatchNorm((), _own(module, path), module=path)


def _layer_norm(module: nn.LayerNorm, path: str, _node: Node, _context: Context) -> Op:
    return LayerNorm((), _own(module, path), shape=tuple(module.normalized_shape), eps=module.eps)


def _act(name: str) -> ModuleRule:
    return lambda module, *_: Activation((), name=name, overwrites=_in_place(module))


def _in_place(module: nn.Module) -> bool:
    return bool(getattr(module, "inplace", False))


def _hardtanh(module: nn.Hardtanh, *_: Any) -> Op:
    bounds = (module.min_val, module.max_val)
    return Activation((), name="hardtanh", options=bounds, overwrites=module.inplace)


def _gelu(module: nn.GELU, *_: Any) -> Op:
    return Activation((), name="gelu", options=(module.approximate,))


def _dropout(module: nn.Dropout, *_: Any) -> Op:
    if not module.training or module.p == 0:
        return Identity(())
    run = partial(dropped, probability=module.p)
    return Opaque((), name="dropout", run=run)


def _max_pool(module: nn.MaxPool2d, _path: str, _node: Node, _context: Context) -> Op:
    kernel = pair(module.kernel_size)
    if module.return_indices or kernel[0] * kernel[1] > 2**8:
        raise UnknownCallError
    return MaxPool(
        (),
        kernel=kernel,
        stride=pair(module.stride),
        padding=pair(module.padding),
        dilation=pair(module.dilation),
        ceil=module.ceil_mode,
    )


def _adaptive_pool(module: nn.AdaptiveAvgPool2d, _path: str, node: Node, context: Context) -> Op:
    return to_one(module.output_size, node, context)


def _flatten(module: nn.Flatten, *_: Any) -> Op:
    return Flatten((), start=module.start_dim, end=module.end_dim)


def _module_run(modules: Modules, value: Tensor, *, path: str) -> Tensor:
    return modules[path](value)  # type: ignore[no-any-return]


def _cheap(module: nn.Module, path: str, _node: Node, _context: Context) -> Op:
    """A layer of PyTorch's that has no parameters, draws nothing and is quickly run again."""
    if _in_place(module):
        raise UnknownCallError
    return Opaque((), name=path, run=partial(_module_run, path=path), random=False)


LAYERS: dict[type[nn.Module], ModuleRule] = {
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


def rule_of(module: nn.Module) -> ModuleRule | None:
    """Return the rule of the class that a module's forward comes from."""
    for kind, rule in LAYERS.items():
        if isinstance(module, kind) and type(module).forward is kind.forward:
            return rule
    return None
