"""The tape of a training program: the buffers of ExecuTorch's arena, without ExecuTorch.

ExecuTorch runs a program's operators in the order of its graph. Each result has a buffer that lives
until the last operator that reads it. Inputs and trained parameters live from the start, and
whatever the program returns lives to its end. A view has no buffer of its own: its readers read the
buffer that it shows.
"""

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND, elementwise_dtypes
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node

from dse.memory.site import Phase, Site
from dse.memory.tape import Event, Tape

_aten = torch.ops.aten
_VIEWS = (_aten.view.default, _aten._unsafe_view.default)  # noqa: SLF001  # no public name
_START = Site("forward", "", "")
_PROMOTIONS: dict[Any, ELEMENTWISE_TYPE_PROMOTION_KIND] = {
    _aten.add.Tensor: ELEMENTWISE_TYPE_PROMOTION_KIND.DEFAULT,
    _aten.sub.Tensor: ELEMENTWISE_TYPE_PROMOTION_KIND.DEFAULT,
    _aten.mul.Tensor: ELEMENTWISE_TYPE_PROMOTION_KIND.DEFAULT,
    _aten.div.Tensor: ELEMENTWISE_TYPE_PROMOTION_KIND.INT_TO_FLOAT,
    _aten.minimum.default: ELEMENTWISE_TYPE_PROMOTION_KIND.DEFAULT,
}
"""Operators whose operands ExecuTorch copies to one type first."""


def program_tape(program: ExportedProgram) -> Tape:
    """Return the buffers of a program's arena.

    Args:
        program: as `training_program` returns it, of a network on any device.

    Returns:
        The tape. Inputs and trained parameters are born at its first site. Each operator has a site
        of its own, at which buffers are born that it makes, and die that it reads last.
    """
    categories = _categories(program)
    arguments = _planned_arguments(program)
    loss = program.graph_signature.output_specs[0].arg.name
    writing = _Writing()
    phase: Phase = "forward"
    for node in program.graph.nodes:
        category = categories.get(node.name, "temporary")
        if node.op == "placeholder":
            writing.shown[node] = ()
            if node.name in arguments:
                writing.make(node, category=arguments[node.name])
        elif node.op == "output":
            # ExecuTorch adds the trained parameters to what a program returns.
            kept = [one for one in writing.shown if arguments.get(one.name) == "weights"]
            writing.operator(Site(phase, "output", ""), [*node.all_input_nodes, *kept])
        else:
            _write_operator(writing, node, phase=phase, category=category)
        if node.name == loss:
            phase = "backward"
    return writing.tape()


@dataclass
class _Writing:
    """A tape that is being written.

    Attributes:
        shown: the buffers that each node shows, one for each of its results.
    """

    shown: dict[Node, tuple[int | None, ...]] = field(default_factory=dict)
    _dims: list[tuple[int, ...]] = field(default_factory=list)
    _float_bytes: list[int] = field(default_factory=list)
    _categories: list[str] = field(default_factory=list)
    _born: list[int] = field(default_factory=list)
    _last: list[int] = field(default_factory=list)
    _sites: list[Site] = field(default_factory=lambda: [_START])

    def buffer(self, value: Tensor, *, category: str) -> int:
        """Make a buffer at the current site, and return its number."""
        size = value.element_size()
        self._dims.append((*map(int, value.shape), size))
        self._float_bytes.append(size if value.is_floating_point() else 0)
        self._categories.append(category)
        self._born.append(len(self._sites) - 1)
        self._last.append(len(self._sites) - 1)
        return len(self._dims) - 1

    def make(self, node: Node, *, category: str) -> None:
        """Make the buffers of a node's results."""
        self.shown[node] = tuple(
            self.buffer(value, category=category) if isinstance(value, Tensor) else None
            for value in _values(node)
        )

    def operator(self, site: Site, reads: list[Node]) -> None:
        """Begin an operator that reads what nodes show."""
        self._sites.append(site)
        for node in reads:
            for number in self.shown[node]:
                if number is not None:
                    self.extend(number)

    def extend(self, number: int) -> None:
        """Let a buffer live until the current site."""
        self._last[number] = len(self._sites) - 1

    def tape(self) -> Tape:
        """Return the tape."""
        events = [(site, Event.BIRTH, number) for number, site in enumerate(self._born)]
        events += [(site, Event.DEATH, number) for number, site in enumerate(self._last)]
        return Tape(
            dims=tuple(self._dims),
            float_bytes=tuple(self._float_bytes),
            category=tuple(self._categories),
            events=tuple((event, number, site) for site, event, number in sorted(events)),
            sites=tuple(self._sites),
            macs=(),
            chunks=(None,) * len(self._dims),
        )


def _write_operator(writing: _Writing, node: Node, *, phase: Phase, category: str) -> None:
    if node.target is operator.getitem:
        made, place = cast("tuple[Node, int]", node.args)
        writing.operator(_site(node, phase), [made])
        writing.shown[node] = (writing.shown[made][place],)
        return
    copies = []
    for value, read in _copied_operands(node):
        writing.operator(Site(phase, "aten::_to_copy", _module(node)), read)
        copies.append(writing.buffer(value, category="temporary"))
    writing.operator(_site(node, phase), node.all_input_nodes)
    for copy in copies:
        writing.extend(copy)
    if node.target in _VIEWS and all(user.op != "output" for user in node.users):
        writing.shown[node] = writing.shown[node.all_input_nodes[0]]
    else:
        writing.make(node, category=category)


def _copied_operands(node: Node) -> Iterator[tuple[Tensor, list[Node]]]:
    """Yield operands that are copied to another type: the copy, and the nodes that it reads."""
    kind = _PROMOTIONS.get(node.target)
    if kind is None:
        return
    operands = [(*_values(one), None)[0] if isinstance(one, Node) else one for one in node.args]
    # ExecuTorch makes a tensor of a number, so that it takes part with a type of its own.
    tensors = [one if isinstance(one, Tensor) else torch.tensor(one) for one in operands]
    _, wanted = elementwise_dtypes(*tensors, type_promotion_kind=kind)
    for given, one in zip(node.args, tensors, strict=True):
        if one.dtype != wanted:
            yield one.to("meta", wanted), [given] if isinstance(given, Node) else []


def _values(node: Node) -> tuple[object, ...]:
    found = node.meta.get("val")
    return tuple(found) if isinstance(found, (tuple, list)) else (found,)


def _site(node: Node, phase: Phase) -> Site:
    name = getattr(node.target, "_schema", None)
    return Site(phase, name.name if name is not None else "getitem", _module(node))


def _module(node: Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def _planned_arguments(program: ExportedProgram) -> dict[str, str]:
    """Return the categories of the placeholders that have a place in the arena, by name."""
    signature = program.graph_signature
    trained = {
        spec.target
        for spec in signature.output_specs
        if spec.kind == OutputKind.GRADIENT_TO_PARAMETER
    }
    found = {}
    for spec in signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            found[spec.arg.name] = "input"
        elif spec.target in trained:
            found[spec.arg.name] = "weights"
    return found


def _categories(program: ExportedProgram) -> dict[str, str]:
    return {
        spec.arg.name: "gradients"
        for spec in program.graph_signature.output_specs
        if spec.kind == OutputKind.GRADIENT_TO_PARAMETER
    }
