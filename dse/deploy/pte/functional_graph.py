"""Simplifies the graph of a traced step in which nothing is changed in place.

What the engine writes into parts of a tensor has become one whole tensor for each part. Such chains
become one concatenation, and copies that change nothing are left out: in ExecuTorch's arena each
would be a buffer.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

CHUNK = "chunk"
"""Key of a node's own notes: the chunk in which it is computed, as (way, place)."""

_aten = torch.ops.aten
_ALIASES = (_aten.alias.default, _aten.detach.default)
_END = 2**63 - 1


def without_aliases(module: GraphModule) -> None:
    """Remove operators that return their input, which ExecuTorch would run as copies."""
    for node in list(module.graph.nodes):
        if node.op == "call_function" and node.target in _ALIASES:
            _replace(node, node.args[0])
    module.graph.eliminate_dead_code()
    module.recompile()


def simplify(module: GraphModule) -> None:
    """Remove copies, and write chains of parts as concatenations."""
    without_aliases(module)
    graph = module.graph
    for node in list(graph.nodes):
        if node.op == "call_function" and (same := _copied(node)) is not None:
            _replace(node, same)
    _join_parts(graph)
    graph.eliminate_dead_code()
    module.recompile()


def _replace(node: Node, other: Any) -> None:
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)


def _copied(node: Node) -> Node | None:
    """Return the node of which a node is a copy that nothing needs, else None."""
    if node.target is _aten.copy.default:
        into, source = node.args[0], node.args[1]
    elif node.target is _aten.clone.default or _is_whole_slice(node):
        into, source = node, node.args[0]
    else:
        return None
    if not isinstance(into, Node) or not isinstance(source, Node):
        return None
    if source.op == "placeholder" and any(user.op == "output" for user in node.users):
        return None  # a program's result must not be its input
    one, other = into.meta["val"], source.meta["val"]
    same = one.shape == other.shape and one.dtype == other.dtype
    return source if same and _order(one) == _order(other) else None


def _order(value: Tensor) -> tuple[int, ...] | None:
    """Return the dimensions from the slowest to the fastest; None if values share memory."""
    sized = [(stride, size) for stride, size in zip(value.stride(), value.shape, strict=True)]
    if any(not stride and size > 1 for stride, size in sized):
        return None
    places = [place for place, (_, size) in enumerate(sized) if size != 1]
    return tuple(sorted(places, key=lambda place: -sized[place][0]))


@dataclass(frozen=True)
class _Span:
    """Part of a dimension."""

    dim: int
    start: int
    stop: int
    size: int

    @classmethod
    def of(cls, node: Node, *, first: int) -> "_Span":
        """Read it off a node's arguments, of which the dimension is number ``first``."""
        given: list[Any] = [*node.args[first:], *(None,) * 4][:4]
        base: Any = node.args[0]
        shape = base.meta["val"].shape
        dim = int(given[0] or 0) % len(shape)
        start, stop = int(given[1] or 0), min(_END if given[2] is None else given[2], shape[dim])
        if start < 0 or stop < 0 or given[3] not in (None, 1):
            return cls(-1, 0, 0, 0)  # none that the engine makes
        return cls(dim, start, stop, int(shape[dim]))

    def is_apart(self, other: "_Span") -> bool:
        """Whether two parts of the same dimension have nothing in common."""
        return self.stop <= other.start or other.stop <= self.start


def _is_whole_slice(node: Node) -> bool:
    if node.target is not _aten.slice.Tensor:
        return False
    span = _Span.of(node, first=1)
    return span.start == 0 and 0 < span.size == span.stop


@dataclass(frozen=True)
class _Written:
    """A tensor into which parts were written.

    Attributes:
        base: the tensor before.
        parts: what was written, by place.
    """

    base: Node
    parts: dict[_Span, Node]

    def whole(self) -> list[Node] | None:
        """Return the parts in order, if nothing is left of the tensor before."""
        spans = sorted(self.parts, key=lambda span: span.start)
        ends = [0, *(span.stop for span in spans)]
        complete = ends[-1] == spans[-1].size
        same = [span.start for span in spans] == ends[:-1]
        return [self.parts[span] for span in spans] if complete and same else None


def _join_parts(graph: Graph) -> None:
    written: dict[Node, _Written] = {}
    for node in list(graph.nodes):
        if node.target is _aten.slice_scatter.default:
            found = _extended(node, written)
            if found is None:
                continue
            parts = found.whole()
            if parts is None:
                written[node] = found
                continue
            with graph.inserting_before(node):
                joined = graph.call_function(
                    _aten.cat.default, (parts, _Span.of(node, first=2).dim)
                )
            joined.meta = {key: held for key, held in node.meta.items() if key != "custom"}
            _replace(node, joined)
        elif node.target is _aten.slice.Tensor and node.args[0] in written:
            _read_part(node, written[node.args[0]])


def _extended(node: Node, written: dict[Node, _Written]) -> _Written | None:
    before, part = node.args[0], node.args[1]
    span = _Span.of(node, first=2)
    if not isinstance(before, Node) or not isinstance(part, Node) or not span.size:
        return None
    own = written.get(before, _Written(before, {}))
    if any(other.dim != span.dim or not other.is_apart(span) for other in own.parts):
        own = _Written(before, {})
    return _Written(own.base, {**own.parts, span: part})


def _read_part(node: Node, written: _Written) -> None:
    """Read a part directly, without the chain, if it was written as it is or not at all."""
    span = _Span.of(node, first=1)
    if span in written.parts:
        _replace(node, written.parts[span])
    elif span.size and all(o.dim == span.dim and o.is_apart(span) for o in written.parts):
        node.update_arg(0, written.base)
