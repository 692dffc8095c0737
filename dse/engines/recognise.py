"""Recognise the calls of a graph as operators that lean training can run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dse.engines.calls import FUNCTIONS, METHODS, opaque
from dse.engines.context import Context, Shapes, UnknownCallError, single
from dse.engines.graph import Node
from dse.engines.layers import rule_of
from dse.engines.op import Modules, Op
from dse.engines.shapes import Add


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
    context = Context(modules, shapes, tensors)
    if node.name not in shapes:
        return None
    try:
        op, reads = _found(node, context)
    except UnknownCallError:
        return None
    if any(name in tensors or name not in shapes for name in reads):
        return None
    return Found(op, reads, node.name)


def _found(node: Node, context: Context) -> tuple[Op, tuple[str, ...]]:
    if node.kind == "module":
        module = context.modules[node.target]
        rule = rule_of(module)
        if rule is None or node.kwargs or len(node.args) != 1:
            raise UnknownCallError
        return rule(module, node.target, node, context), single(node)
    function = (METHODS if node.kind == "method" else FUNCTIONS).get(node.target)
    if function is not None:
        return function(node, context)
    return opaque(node, context)


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
        op = each.op
        if isinstance(op, Add):  # the newer value first: it may be overwritten
            target, inputs = inputs[0], tuple(sorted(inputs, reverse=True))
            op = replace(op, target=None if op.target is None else inputs.index(target))
        ops.append(replace(op, inputs=inputs))
    return tuple(ops)
