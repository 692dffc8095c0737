"""The tape of a training program: the buffers of ExecuTorch's arena, without ExecuTorch.

ExecuTorch runs a program's operators in the order of its graph. Each result has a buffer that lives
until the last operator that reads it. Inputs and trained parameters live from the start, and
whatever the program returns lives to its end. A view has no buffer of its own: its readers read the
buffer that it shows.
"""

import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND, elementwise_dtypes
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node

from dse.deploy.pte.functional_graph import CHUNK
from dse.memory.site import Phase, Site
from dse.memory.tape import Event, Tape

_aten = torch.ops.aten
_VIEWS = (_aten.view.default, _aten._unsafe_view.default)  # noqa: SLF001  # no public name
Chunk = tuple[int, int] | None
"""The chunk in which something is computed: the way of dividing, and the number of the chunk."""

_START = Site("forward", "", "")
_PROMOTIONS: dict[Any, ELEMENTWISE_TYPE_PROMOTION_KIND] = {
    _aten.add.Tensor: ELEMENTWISE_TYPE_PROMOTION_KIND.DEFAULT,
    _aten.sub.Tensor: ELEMENTWISE_TYPE_PROMOTION_KIND.DEFAULT,
    _aten.mul.Tensor: ELEMENTWISE_TYPE_PROMOTION_KIND.DEFAULT,
    _aten.div.Tensor: ELEMENTWISE_TYPE_PROMOTION_KIND.INT_TO_FLOAT,
    _aten.minimum.default: ELEMENTWISE_TYPE_PROMOTION_KIND.DEFAULT,
}
"""Operators whose operands ExecuTorch copies to one type first."""


@dataclass(frozen=True)
class ChunkedLives:
    """Lives of buffers where a tensor may have fewer chunks than were traced.

    Attributes:
        born: site at which each buffer is born.
        reads: for each buffer, the sites that read it, each with its chunk.
        firsts: a buffer of each chunk, which has no bytes if the chunk doesn't exist.
        sums: buffers of sums over chunks: for each, the one after every chunk. What reads the last
            of them reads that of the last chunk that exists.
        copies: what the first chunk copies from a whole tensor: the copy, the buffer that it is
            copied from (None for what isn't in the arena), and the chunk after it. If that doesn't
            exist, nothing is copied.
    """

    born: tuple[int, ...]
    reads: tuple[tuple[tuple[int, Chunk], ...], ...]
    firsts: Mapping[Chunk, int]
    sums: tuple[tuple[int, ...], ...]
    copies: tuple[tuple[int, int | None, Chunk], ...]

    def events(self, sizes: list[int]) -> list[tuple[Event, int, int]]:
        """Return births and deaths as rows of event, buffer and site.

        Args:
            sizes: bytes of each buffer, 0 for those of chunks that don't exist. Set to 0 where
                nothing is copied.
        """
        missing = {chunk for chunk, number in self.firsts.items() if not sizes[number]}
        last = [
            max([born, *(site for site, chunk in reads if chunk not in missing)])
            for born, reads in zip(self.born, self.reads, strict=True)
        ]
        for buffers in self.sums:
            own = max(place for place, number in enumerate(buffers) if sizes[number])
            last[buffers[own]] = last[buffers[-1]]
        for copy, base, after in self.copies:
            if after in missing:
                sizes[copy] = 0
                if base is not None:
                    last[base] = max(last[base], last[copy])
        return _events(
            [(number, born, last[number]) for number, born in enumerate(self.born) if sizes[number]]
        )


def _events(lives: Iterable[tuple[int, int, int]]) -> list[tuple[Event, int, int]]:
    """Return births and deaths in order, of rows of buffer, first and last site."""
    both = [
        (site, event, number)
        for number, born, last in lives
        for site, event in ((born, Event.BIRTH), (last, Event.DEATH))
    ]
    return [(event, number, site) for site, event, number in sorted(both)]


def program_tape(program: ExportedProgram) -> tuple[Tape, ChunkedLives]:
    """Return the buffers of a program's arena.

    Args:
        program: as `training_program` returns it, of a network on any device.

    Returns:
        The tape. Inputs and trained parameters are born at its first site. Each operator has a site
        of its own, at which buffers are born that it makes, and die that it reads last. Beside it,
        their lives with fewer chunks.
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
            writing.operator(Site(phase, "output", ""), [*node.all_input_nodes, *kept], None)
        else:
            _write_operator(writing, node, phase=phase, category=category)
        if node.name == loss:
            phase = "backward"
    return writing.tape(), writing.lives()


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
    _reads: list[list[tuple[int, Chunk]]] = field(default_factory=list)
    _chunks: list[Chunk] = field(default_factory=list)
    _sums: dict[int, tuple[int, ...]] = field(default_factory=dict)
    _copies: list[tuple[int, int | None, Chunk]] = field(default_factory=list)
    _sites: list[Site] = field(default_factory=lambda: [_START])

    def buffer(self, value: Tensor, *, category: str, chunk: Chunk = None) -> int:
        """Make a buffer at the current site, and return its number."""
        size = value.element_size()
        self._dims.append((*map(int, value.shape), size))
        self._float_bytes.append(size if value.is_floating_point() else 0)
        self._categories.append(category)
        self._chunks.append(chunk)
        self._born.append(len(self._sites) - 1)
        self._reads.append([])
        return len(self._dims) - 1

    def make(self, node: Node, *, category: str) -> None:
        """Make the buffers of a node's results."""
        self.shown[node] = tuple(
            self.buffer(value, category=category, chunk=_chunk(node))
            if isinstance(value, Tensor)
            else None
            for value in _values(node)
        )

    def operator(self, site: Site, reads: list[Node], chunk: Chunk) -> None:
        """Begin an operator that reads what nodes show."""
        self._sites.append(site)
        for node in reads:
            for number in self.shown[node]:
                if number is not None:
                    self.read(number, chunk)

    def read(self, number: int, chunk: Chunk) -> None:
        """Let the current site read a buffer, which lives until then."""
        self._reads[number].append((len(self._sites) - 1, chunk))

    def note_chunk(self, node: Node) -> None:
        """Note what a node does that a smaller number of chunks changes."""
        chunk, (made, *_) = _chunk(node), self.shown[node]
        if chunk is None or made is None:
            return
        way, place = chunk
        if place and node.target is _aten.add.Tensor:
            for before in node.all_input_nodes:
                (own, *_) = self.shown[before] or (None,)
                if own is not None and self._chunks[own] == (way, place - 1):
                    self._sums[made] = (*self._sums.pop(own, (own,)), made)
                    return
        if not place and node.target is _aten.slice.Tensor:
            (base, *_) = self.shown[node.all_input_nodes[0]] or (None,)
            self._copies.append((made, base, (way, 1)))

    def lives(self) -> ChunkedLives:
        """Return the lives of the buffers with fewer chunks."""
        return ChunkedLives(
            tuple(self._born),
            tuple(map(tuple, self._reads)),
            {
                chunk: number
                for number, chunk in reversed(list(enumerate(self._chunks)))
                if chunk is not None and chunk[1]
            },
            tuple(self._sums.values()),
            tuple(self._copies),
        )

    def tape(self) -> Tape:
        """Return the tape."""
        lives = (
            (number, born, max([born, *(site for site, _ in self._reads[number])]))
            for number, born in enumerate(self._born)
        )
        return Tape(
            dims=tuple(self._dims),
            float_bytes=tuple(self._float_bytes),
            category=tuple(self._categories),
            events=tuple(_events(lives)),
            sites=tuple(self._sites),
            macs=(),
            chunks=tuple(self._chunks),
        )


def _write_operator(writing: _Writing, node: Node, *, phase: Phase, category: str) -> None:
    if node.target is operator.getitem:
        made, place = cast("tuple[Node, int]", node.args)
        writing.operator(_site(node, phase), [made], _chunk(node))
        writing.shown[node] = (writing.shown[made][place],)
        return
    copies = []
    for value, read in _copied_operands(node):
        writing.operator(Site(phase, "aten::_to_copy", _module(node)), read, _chunk(node))
        copies.append(writing.buffer(value, category="temporary", chunk=_chunk(node)))
    writing.operator(_site(node, phase), node.all_input_nodes, _chunk(node))
    for copy in copies:
        writing.read(copy, _chunk(node))
    if node.target in _VIEWS and all(user.op != "output" for user in node.users):
        writing.shown[node] = writing.shown[node.all_input_nodes[0]]
    else:
        writing.make(node, category=category)
        writing.note_chunk(node)


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


def _chunk(node: Node) -> Chunk:
    found: Chunk = node.meta.get("custom", {}).get(CHUNK)
    return found


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
