"""A network of modules from an exported program, with real layers where it has their operators.

An exported program calls operators on tensors, and its mode is fixed. PyTorch's `unflatten`
restores the modules. Each that is one layer's operator becomes that layer, so that it can train, be
pruned and change its mode; every other one becomes a module with the program's graph.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.unflatten import InterpreterModule, unflatten

_aten = torch.ops.aten

_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_DROPOUTS = (_aten.dropout.default, _aten.dropout_.default)


def network_of(program: ExportedProgram) -> nn.Module:
    """Return the network of a program, in training mode, with the program's tensors.

    Args:
        program: A program that takes tensors and returns one or more.
    """
    whole = unflatten(program)
    network = _converted(whole, {}, root=True)
    network.train()
    return network


def _converted(module: nn.Module, known: dict[int, nn.Module], *, root: bool = False) -> nn.Module:
    """Convert a module and those in it; one that stands in several places stays one."""
    if id(module) not in known:
        layer = None if root else _layer(module)
        known[id(module)] = _with_graph(module, known) if layer is None else layer
    return known[id(module)]


def _with_graph(module: nn.Module, known: dict[int, nn.Module]) -> nn.Module:
    """Return a module that runs a copy of the graph, on converted modules."""
    holder = nn.Module()
    for name, child in module.named_children():
        holder.add_module(name, _converted(child, known))
    for name, parameter in module.named_parameters(recurse=False):
        holder.register_parameter(name, parameter)
    for name, buffer in module.named_buffers(recurse=False):
        holder.register_buffer(name, buffer)
    original = getattr(module, "graph", None)
    if not isinstance(original, fx.Graph):
        return holder  # of modules that are called by their own names
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(original, copied)
    graph.output(_single(output))
    _make_modes_free(graph, holder)
    graph.lint()
    return Exported(holder, graph, class_name=_class_name(module))


class Exported(fx.GraphModule):
    """A module of an exported program. Its copies have its attributes, as those of others do."""

    def __deepcopy__(self, memo: dict[int, Any]) -> fx.GraphModule:
        """Copy everything; `fx.GraphModule` leaves out what it doesn't know."""
        result = super().__deepcopy__(memo)
        own, theirs = vars(self), vars(result)
        theirs.update({key: deepcopy(own[key], memo) for key in own if key not in theirs})
        return result


def _single(output: Any) -> Any:
    """Return the only value of a tuple, as the network returned it before it was exported."""
    return output[0] if isinstance(output, (tuple, list)) and len(output) == 1 else output


def _class_name(module: nn.Module) -> str:
    original = getattr(module, "ty", None) or "Exported"
    return str(original).rpartition(".")[2] or "Exported"


def _make_modes_free(graph: fx.Graph, holder: nn.Module) -> None:
    """Let dropout that the program has switched off follow the network's mode again."""
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in _DROPOUTS:
            name = f"dropout_of_{node.name}"
            holder.add_module(name, nn.Dropout(node.args[1]))
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.call_module(name, (node.args[0],)))
            graph.erase_node(node)


def _layer(module: nn.Module) -> nn.Module | None:
    """Return the layer whose operator a module runs on its own tensors; None if it isn't one."""
    if not isinstance(module, InterpreterModule) or any(module.children()):
        return None
    nodes: dict[str, list[fx.Node]] = {}
    for node in module.graph.nodes:
        nodes.setdefault(node.op, []).append(node)
    own = {node: str(node.target) for node in nodes.get("get_attr", [])}
    calls = [
        node
        for node in nodes.get("call_function", [])
        if [own.get(one) for one in node.all_input_nodes] != ["num_batches_tracked"]
    ]
    given, output = nodes.get("placeholder", []), nodes["output"][0].args[0]
    if len(calls) != 1 or len(given) != 1 or _single(output) is not calls[0] or calls[0].kwargs:
        return None
    build = _LAYERS.get(calls[0].target)
    if build is None:
        return None
    args = list(calls[0].args)
    tensors = [own.get(one) if isinstance(one, fx.Node) else None for one in args]
    with torch.device("meta"):
        layer = build(_OperatorCall(module, given[0], args, tensors))
    if layer is not None:
        for name, parameter in module.named_parameters(recurse=False):
            layer.register_parameter(name, parameter)
        for name, buffer in module.named_buffers(recurse=False):
            layer.register_buffer(name, buffer)
        if "num_batches_tracked" in layer._buffers and layer.num_batches_tracked.is_meta:  # noqa: SLF001
            layer.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long))
    return layer


@dataclass(frozen=True)
class _OperatorCall:
    """A module's one operator.

    Attributes:
        module: The module, which has the tensors.
        given: Its input.
        args: Arguments of the operator.
        tensors: For each argument, the module's tensor that it is, by name.
    """

    module: nn.Module
    given: fx.Node
    args: list[Any]
    tensors: list[str | None]

    def has(self, place: int) -> bool:
        """Whether an argument is given, and not None."""
        return len(self.args) > place and self.args[place] is not None

    def reads(self, *names: str | None, start: int = 1) -> bool:
        """Whether the arguments from a place on are the module's tensors of these names or None."""
        places = range(start, start + len(names))
        return self.args[0] is self.given and all(
            not self.has(place) or self.tensors[place] == name
            for place, name in zip(places, names, strict=True)
        )


def _convolution(kind: type[nn.Module]) -> Callable[[_OperatorCall], nn.Module | None]:
    def build(call: _OperatorCall) -> nn.Module | None:
        if not call.reads("weight", "bias"):
            return None
        weight = call.module.get_parameter("weight")
        given = dict(zip(("stride", "padding", "dilation", "groups"), call.args[3:], strict=False))
        groups = given.get("groups", 1)

        def each(value: Any) -> Any:
            if isinstance(value, str | int):
                return value
            return tuple(value) * (weight.dim() - 2 if len(value) == 1 else 1)

        return kind(
            weight.shape[1] * groups,
            weight.shape[0],
            tuple(weight.shape[2:]),
            **{key: each(value) for key, value in given.items()},
            bias=call.has(2),
        )

    return build


def _linear(call: _OperatorCall) -> nn.Module | None:
    if not call.reads("weight", "bias"):
        return None
    outputs, inputs = call.module.get_parameter("weight").shape
    return nn.Linear(inputs, outputs, bias=call.has(2))


def _batch_norm(call: _OperatorCall) -> nn.Module | None:
    value = call.given.meta.get("val")
    tracked = call.tensors[3:5] == ["running_mean", "running_var"]
    if value is None or not tracked or not call.reads("weight", "bias"):
        return None
    kind = _BATCH_NORMS.get(value.dim())
    if kind is None:
        return None
    width = call.module.get_buffer("running_mean").shape[0]
    _, momentum, eps = call.args[5:8]
    return kind(width, eps=eps, momentum=momentum, affine=call.has(1))


def _layer_norm(call: _OperatorCall) -> nn.Module | None:
    if not call.reads("weight", "bias", start=2):
        return None
    eps = call.args[4] if call.has(4) else 1e-5
    return nn.LayerNorm(list(call.args[1]), eps, elementwise_affine=call.has(2), bias=call.has(3))


def _embedding(call: _OperatorCall) -> nn.Module | None:
    if call.tensors[0] != "weight" or call.args[1:] != [call.given]:
        return None
    return nn.Embedding(*call.module.get_parameter("weight").shape)


def _dropout(call: _OperatorCall) -> nn.Module | None:
    return nn.Dropout(call.args[1]) if call.args[0] is call.given else None


def _clipped(*, inplace: bool) -> Callable[[_OperatorCall], nn.Module | None]:
    def build(call: _OperatorCall) -> nn.Module | None:
        return nn.ReLU6(inplace=inplace) if call.args == [call.given, 0, 6] else None

    return build


def _activation(
    kind: Callable[..., nn.Module], **options: bool
) -> Callable[[_OperatorCall], nn.Module | None]:
    return lambda call: kind(**options) if call.args == [call.given] else None


_LAYERS: dict[Any, Callable[[_OperatorCall], nn.Module | None]] = {
    _aten.conv1d.default: _convolution(nn.Conv1d),
    _aten.conv2d.default: _convolution(nn.Conv2d),
    _aten.conv2d.padding: _convolution(nn.Conv2d),
    _aten.conv3d.default: _convolution(nn.Conv3d),
    _aten.linear.default: _linear,
    _aten.batch_norm.default: _batch_norm,
    _aten.layer_norm.default: _layer_norm,
    _aten.embedding.default: _embedding,
    **dict.fromkeys(_DROPOUTS, _dropout),
    _aten.hardtanh.default: _clipped(inplace=False),
    _aten.hardtanh_.default: _clipped(inplace=True),
    _aten.relu.default: _activation(nn.ReLU),
    _aten.relu_.default: _activation(nn.ReLU, inplace=True),
    _aten.silu.default: _activation(nn.SiLU),
    _aten.silu_.default: _activation(nn.SiLU, inplace=True),
    _aten.hardswish.default: _activation(nn.Hardswish),
    _aten.hardswish_.default: _activation(nn.Hardswish, inplace=True),
    _aten.hardsigmoid.default: _activation(nn.Hardsigmoid),
    _aten.sigmoid.default: _activation(nn.Sigmoid),
    _aten.tanh.default: _activation(nn.Tanh),
    _aten.gelu.default: _activation(nn.GELU),
}
