"""Divide a graph into segments that pass one tensor on to the next."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor

from dse.engines.activations import Activation
from dse.engines.context import Shapes
from dse.engines.graph import Graph, Node, Ref, refs
from dse.engines.norms import BatchNorm, LayerNorm
from dse.engines.op import Modules, tensor_at
from dse.engines.recognise import Found, recognise
from dse.engines.shapes import Add, Identity


@dataclass(frozen=True)
class Segment:
    """Consecutive calls that read one value and leave one.

    Attributes:
        title: Name of the module that the calls belong to, for people to read.
        nodes: The calls, including parameters and buffers that they read.
        input: Name of the value that it reads.
        output: Name of the value that it leaves. Empty for the last segment of a graph that returns
            something else than one tensor.
        found: The operators in place of the calls, or None if stock PyTorch must run them.
        overwrites_input: Whether stock PyTorch changes the segment's input in place.
    """

    title: str
    nodes: tuple[Node, ...]
    input: str
    output: str
    found: tuple[Found, ...] | None
    overwrites_input: bool

    @property
    def first(self) -> str:
        """Name of its first call."""
        return next(node.name for node in self.nodes if node.kind != "tensor")

    @property
    def last(self) -> str:
        """Name of its last call."""
        return self.nodes[-1].name

    def tensors(self, modules: Modules) -> list[Tensor]:
        """Return the parameters of its modules, and parameters and buffers that it reads."""
        found: dict[int, Tensor] = {}
        for node in self.nodes:
            if node.kind == "module":
                found.update((id(p), p) for p in modules[node.target].parameters())
            elif node.kind == "tensor":
                tensor = tensor_at(modules, node.target)
                if tensor is not None:
                    found[id(tensor)] = tensor
        return list(found.values())


@dataclass(frozen=True)
class _Atom:
    """Calls between two neighbouring values that everything later depends on."""

    nodes: tuple[Node, ...]
    input: str
    output: str
    found: tuple[Found, ...] | None

    @property
    def op(self) -> object:
        """The operator, if there is only one."""
        return self.found[0].op if self.found and len(self.found) == 1 else None

    @property
    def is_block(self) -> bool:
        """Whether it is a residual block: several operators, of which the last is a sum."""
        return self.found is not None and isinstance(self.found[-1].op, Add)


def effects(graph: Graph) -> tuple[Node, ...]:
    """Return the calls that only change buffers, such as counting a batch."""
    tensors = {node.name for node in graph.nodes if node.kind == "tensor"}
    used = _used(graph)
    return tuple(
        node
        for node in graph.nodes
        if node.kind != "tensor" and node.name not in used and set(node.reads()) <= tensors
    )


def divide(
    graph: Graph, *, modules: Modules, shapes: Shapes, borders: Sequence[str] | None = None
) -> tuple[Segment, ...]:
    """Divide a graph into segments.

    Args:
        graph: The graph.
        modules: The network's modules by name.
        shapes: Shape of every result.
        borders: Last call of every segment, if known from a network of the same structure.
            Otherwise segments end where a block ends or channels become few.
    """
    atoms = list(_atoms(graph, modules, shapes))
    groups = _given(atoms, borders) if borders is not None else _grouped(atoms, shapes)
    tensors = {node.name: node for node in graph.nodes if node.kind == "tensor"}
    return tuple(_segment(group, tensors, modules) for group in groups)


def _used(graph: Graph) -> set[str]:
    return {name for node in graph.nodes for name in node.reads()} | set(refs(graph.output))


def _atoms(graph: Graph, modules: Modules, shapes: Shapes) -> Iterator[_Atom]:
    tensors = {node.name: node.target for node in graph.nodes if node.kind == "tensor"}
    beside = {node.name for node in effects(graph)}
    nodes = [n for n in graph.nodes if n.kind != "tensor" and n.name not in beside]
    last_use = {name: place for place, node in enumerate(nodes) for name in node.reads()}
    last_use.update(dict.fromkeys(refs(graph.output), len(nodes)))
    spoilt = _read_after_change(nodes, modules)
    found = {
        node.name: recognise(node, modules=modules, shapes=shapes, tensors=tensors)
        for node in nodes
        if node.name not in spoilt
    }
    live = {graph.input}
    start, entry = 0, graph.input
    for place, node in enumerate(nodes):
        live.add(node.name)
        live = {name for name in live if last_use.get(name, -1) > place}
        ends = place + 1 == len(nodes)
        if not ends and (len(live) != 1 or not live <= shapes.keys()):
            continue
        own = tuple(nodes[start : place + 1])
        single = len(live) == 1 and live <= shapes.keys()
        leaves = next(iter(live)) if single else ""
        ops = [found.get(each.name) for each in own]
        known = [each for each in ops if each is not None]
        plain = not ends or isinstance(graph.output, Ref)
        whole = len(known) == len(ops) and leaves == node.name and plain
        yield _Atom(own, entry, leaves, tuple(known) if whole else None)
        start, entry = place + 1, leaves


def _read_after_change(nodes: Sequence[Node], modules: Modules) -> set[str]:
    """Return calls that change a value in place which is read again, and those readers."""
    spoilt = set()
    for place, node in enumerate(nodes):
        if node.reads() and node.overwrites(modules):
            changed = node.reads()[0]
            later = [each.name for each in nodes[place + 1 :] if changed in each.reads()]
            if later:
                spoilt |= {node.name, *later}
    return spoilt


def _given(atoms: Sequence[_Atom], borders: Sequence[str]) -> list[list[_Atom]]:
    groups: list[list[_Atom]] = [[]]
    for atom in atoms:
        groups[-1].append(atom)
        if atom.nodes[-1].name in borders and atom is not atoms[-1]:
            groups.append([])
    return groups


def _grouped(atoms: Sequence[_Atom], shapes: Shapes) -> list[list[_Atom]]:
    groups: list[list[_Atom]] = []
    current: list[_Atom] = []
    for place, atom in enumerate(atoms):
        current.append(atom)
        if place + 1 == len(atoms):
            groups += _ended(current)
        elif (tail := _ends(current, atoms[place + 1], shapes)) is not None:
            if atoms[place + 1].found is not None:  # a view at the end begins the next segment
                while tail < len(current) - 1 and getattr(current[-tail - 1].op, "views", False):
                    tail += 1
            groups += _ended(current[: len(current) - tail])
            current = current[len(current) - tail :]
    return groups


def _ends(current: Sequence[_Atom], following: _Atom, shapes: Shapes) -> int | None:
    """Decide whether a segment ends here: return how many atoms the next one takes over, or None.

    A segment ends with a block, with its activation; before a block or something unknown; and with
    a convolution or linear layer that makes the tensor no larger. Normalisation and activation
    before a block belong to the block: so what is held between is the convolution's output.
    """
    atom = current[-1]
    if atom.found is None:
        checks = atom.output == current[0].input  # calls that leave the value as it is
        joins = following.found is None and (checks or len(following.nodes) == 1)
        return None if joins else 0
    if atom.is_block or (len(current) > 1 and current[-2].is_block):
        return None if atom.is_block and isinstance(following.op, Activation) else 0
    if following.found is None or following.is_block:
        tail = _tail(current) if following.found is not None else 0
        return tail if tail < len(current) else None
    op = atom.op
    contracts = prod(shapes[atom.output]) <= prod(shapes[atom.input])
    if getattr(op, "heavy", False) and not getattr(op, "local", False) and contracts:
        return 0
    return None


def _tail(current: Sequence[_Atom]) -> int:
    """Return how many atoms at the end only normalise or activate what a layer made."""
    count = 0
    for atom in reversed(current):
        if getattr(atom.op, "heavy", False):
            return count
        if not isinstance(atom.op, (BatchNorm, LayerNorm, Activation, Identity)):
            return 0
        count += 1
    return count or 0


def _ended(group: Sequence[_Atom]) -> list[list[_Atom]]:
    """Split changes of shape off a segment's end: an autograd node must not return a view."""
    end = len(group)
    while end and group[end - 1].op is not None and group[end - 1].op.views:  # type: ignore[attr-defined]
        end -= 1
    return [list(part) for part in (group[:end], group[end:]) if part]


def _segment(group: Sequence[_Atom], tensors: Mapping[str, Node], modules: Modules) -> Segment:
    nodes = [node for atom in group for node in atom.nodes]
    own = [tensors[name] for node in nodes for name in node.reads() if name in tensors]
    found: tuple[Found, ...] | None = None
    if all(atom.found is not None for atom in group):
        found = tuple(each for atom in group for each in atom.found or ())
        if found[-1].op.views:
            found = None
    entry = group[0].input
    changed = any(node.overwrites(modules) and entry in node.reads()[:1] for node in nodes)
    return Segment(
        title=_title(nodes, own),
        nodes=(*_unique(own), *nodes),
        input=entry,
        output=group[-1].output,
        found=found,
        overwrites_input=changed,
    )


def _unique(nodes: Sequence[Node]) -> list[Node]:
    return list({node.name: node for node in nodes}.values())


def _title(nodes: Sequence[Node], tensors: Sequence[Node]) -> str:
    """Return the innermost module that more than half of the calls lie in, or the first call's."""
    paths = [node.target for node in nodes if node.kind == "module"]
    paths = paths or [node.target for node in tensors] or [nodes[0].name]
    best = ""
    for path in paths:
        parts = path.split(".")
        for depth in range(1, len(parts) + 1):
            prefix = ".".join(parts[:depth])
            inside = sum(f"{each}.".startswith(f"{prefix}.") for each in paths)
            if 2 * inside > len(paths) and depth > best.count(".") + bool(best):
                best = prefix
    return best or paths[0]
