"""A network's forward pass as a list of calls, found by symbolic tracing."""

import inspect
import operator
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx._symbolic_trace import _assert_is_none
from torch.fx.node import map_arg

from dse.engines.op import Modules, tensor_at

Kind = str  # "module", "function", "method" or "tensor"


_IN_PLACE = ("iadd", "isub", "imul", "itruediv", "ifloordiv", "ipow", "setitem")


@dataclass(frozen=True)
class Ref:
    """Stands for a node's result in the arguments of another."""

    name: str


@dataclass(frozen=True)
class Node:
    """One call of a forward pass.

    Attributes:
        name: Name of the node, the same whenever a network of this structure is traced.
        kind: ``module``, ``function``, ``method`` or ``tensor`` (a parameter or buffer).
        target: Name of the module, the function, name of the method, or name of the tensor.
        args, kwargs: Arguments, with ``Ref`` in place of other nodes' results.
    """

    name: str
    kind: Kind
    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def reads(self) -> list[str]:
        """Return the names of the nodes whose results it reads, in order, without repetition."""
        return list(dict.fromkeys(refs((self.args, self.kwargs))))

    def overwrites(self, modules: Modules) -> bool:
        """Whether the call changes its first argument in place."""
        if self.kind == "module":
            return bool(getattr(modules[self.target], "inplace", False))
        if self.kind == "method":
            return self.target.endswith("_") and not self.target.endswith("__")
        name = getattr(self.target, "__name__", "")
        return bool(self.kwargs.get("inplace")) or name.endswith("_") or name in _IN_PLACE

    def call(self, modules: Modules, results: Mapping[str, Any]) -> Any:
        """Run the call as PyTorch would."""
        args = filled(self.args, results)
        kwargs = filled(self.kwargs, results)
        if self.kind == "module":
            return modules[self.target](*args, **kwargs)
        if self.kind == "tensor":
            return tensor_at(modules, self.target)
        if self.kind == "method":
            return getattr(args[0], self.target)(*args[1:], **kwargs)
        return self.target(*args, **kwargs)


@dataclass(frozen=True)
class Graph:
    """The forward pass of a module that takes one tensor.

    Attributes:
        input: Name that stands for the input.
        nodes: Calls in order.
        output: What is returned, with ``Ref`` in place of results.
    """

    input: str
    nodes: tuple[Node, ...]
    output: Any


def refs(value: Any) -> Iterator[str]:
    """Yield the names of all references within nested arguments."""
    if isinstance(value, Ref):
        yield value.name
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from refs(each)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from refs(each)
    elif isinstance(value, slice):
        yield from refs((value.start, value.stop, value.step))


def filled(value: Any, results: Mapping[str, Any]) -> Any:
    """Put results in place of references within nested arguments."""
    if isinstance(value, Ref):
        return results[value.name]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(filled(each, results) for each in value))
    if isinstance(value, (tuple, list)):
        return type(value)(filled(each, results) for each in value)
    if isinstance(value, Mapping):
        return {key: filled(each, results) for key, each in value.items()}
    if isinstance(value, slice):
        return slice(*(filled(each, results) for each in (value.start, value.stop, value.step)))
    return value


class _Proxy(fx.Proxy):
    """Records augmented assignments, such as ``x += y``, as the changes in place that they are.

    A plain proxy records a sum: then a second name of ``x`` would keep its old value.
    """

    def _changed(self, function: Callable[..., Any], other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    def __iadd__(self, other: Any) -> Any:
        return self._changed(operator.iadd, other)

    def __isub__(self, other: Any) -> Any:
        return self._changed(operator.isub, other)

    def __imul__(self, other: Any) -> Any:
        return self._changed(operator.imul, other)

    def __itruediv__(self, other: Any) -> Any:
        return self._changed(operator.itruediv, other)


class _Tracer(fx.Tracer):
    """Traces through every module that isn't PyTorch's own."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return what stands for a node's result."""
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one call: a layer of PyTorch's whose forward is PyTorch's, too."""
        home = getattr(type(m).forward, "__module__", "")
        containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
        return home.startswith("torch.nn") and not isinstance(m, containers)


def trace(module: nn.Module) -> Graph | None:
    """Trace a module's forward pass in the modes that its submodules are in.

    Args:
        module: The module, without values or with. It may gain constants: pass a copy.

    Returns:
        The graph, or None if the forward pass depends on values or on random numbers of its own,
        or takes more than one input.
    """
    known: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    known.update(module.named_buffers(remove_duplicate=False))
    before = _random_states()
    try:
        found = _Tracer().trace(module, concrete_args=_defaults(module))
    except Exception:  # noqa: BLE001  # any code of a network may run here, and may fail anyhow
        return None
    if _random_states() != before:  # the graph would repeat one draw for ever
        return None
    return _translated(found, known)


def _defaults(module: nn.Module) -> dict[str, Any] | None:
    """Return the optional arguments of a module, which a training step leaves out."""
    plain = (bool, int, float, str, type(None))
    arguments = inspect.signature(type(module).forward).parameters.values()
    found = {each.name: each.default for each in arguments if isinstance(each.default, plain)}
    return found or None


def _random_states() -> tuple[Any, ...]:
    """Return the states of the generators that a network's own code may draw from."""
    numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002  # the global one, as networks do
    own = numpy["state"]
    drawn = own["key"].tobytes(), own["pos"]
    return random.getstate(), drawn, torch.get_rng_state().numpy().tobytes()


def _translated(graph: fx.Graph, known: Mapping[str, Tensor]) -> Graph | None:
    nodes: list[Node] = []
    inputs: list[str] = []
    for node in graph.nodes:
        args: Any = map_arg(node.args, _ref)
        kwargs: Any = map_arg(node.kwargs, _ref)
        if node.op == "placeholder":
            inputs += [] if node.args else [node.name]  # others have their default values
        elif node.op == "output":
            return _without_checks(inputs[0], nodes, args[0]) if len(inputs) == 1 else None
        elif node.op == "get_attr":
            if node.target not in known:  # a constant of this trace
                return None
            nodes.append(Node(node.name, "tensor", node.target, (), {}))
        else:
            kind = node.op.removeprefix("call_")
            nodes.append(Node(node.name, kind, node.target, _plain(args), _plain(kwargs)))
    return None


_LOOKS = (getattr, operator.getitem, operator.eq, operator.ne, operator.lt, operator.le,
          operator.gt, operator.ge)  # fmt: skip


def _without_checks(start: str, nodes: list[Node], output: Any) -> Graph:
    """Leave out assertions about shapes, which held when the network was traced."""
    checks = (torch._assert, _assert_is_none)  # noqa: SLF001
    kept = [node for node in nodes if node.target not in checks]
    while True:
        used = {name for node in kept for name in node.reads()} | set(refs(output))
        idle = [node for node in kept if node.name not in used and _only_looks(node)]
        if not idle:
            return Graph(start, tuple(kept), output)
        kept = [node for node in kept if node not in idle]


def _only_looks(node: Node) -> bool:
    return node.target in (_LOOKS if node.kind == "function" else ("dim", "size"))


def _ref(node: fx.Node) -> Any:
    return Ref(node.name)


def _plain(value: Any) -> Any:
    """Turn the containers that fx makes immutable into plain ones."""
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_plain(each) for each in value)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value


def run_nodes(
    nodes: Sequence[Node],
    modules: Modules,
    results: dict[str, Any],
    *,
    keep: Sequence[str] = (),
    on_result: Callable[[Node, Any], None] | None = None,
) -> None:
    """Run calls in order, and drop every result after its last use.

    Args:
        nodes: The calls.
        modules: The network's modules by name.
        results: Results so far. It gains those in ``keep``.
        keep: Results that are needed afterwards.
        on_result: Called with every node and its result.
    """
    last_use = {name: place for place, node in enumerate(nodes) for name in node.reads()}
    for place, node in enumerate(nodes):
        results[node.name] = node.call(modules, results)
        if on_result is not None:
            on_result(node, results[node.name])
        for name in (*node.reads(), node.name):
            if last_use.get(name, place) == place and name not in keep:
                results.pop(name, None)


def shapes_of(graph: Graph, modules: Modules, image: Tensor) -> dict[str, torch.Size] | None:
    """Return the shape of every result that is a tensor, or None if the graph can't run.

    Args:
        graph: The graph.
        modules: Modules on the meta device.
        image: The input, on the meta device.
    """
    shapes: dict[str, torch.Size] = {graph.input: image.shape}

    def note(node: Node, result: Any) -> None:
        if isinstance(result, Tensor):
            shapes[node.name] = result.shape

    try:
        with torch.no_grad():
            run_nodes(graph.nodes, modules, {graph.input: image}, on_result=note)
    except Exception:  # noqa: BLE001  # whatever can't run on meta is left to stock PyTorch
        return None
    return shapes
