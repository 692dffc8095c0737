"""Find the parts of a region that can be computed for a few channels at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from dse.engines.chunks import Chunked
from dse.engines.dense import Convolution, Layer
from dse.engines.norms import BatchNorm
from dse.engines.op import Modules, Op
from dse.engines.shapes import GlobalPool, MaxPool

IMAGE_DIMENSIONS = 4
DEPTHWISE_COST = 8  # of a multiply-add, as that of a dense layer
Shapes = Sequence[Sequence[int]]
"""Shape of every value of a region, that of its input first."""


@dataclass(frozen=True)
class Span:
    """A part of a region that can be computed in chunks.

    Attributes:
        start, stop: Number of its first operator, and of the one after its last.
        closed: Whether the last operator sums over the channels. Otherwise its output is put
            together from the chunks.
    """

    start: int
    stop: int
    closed: bool


def find_span(ops: Sequence[Op], shapes: Shapes) -> Span | None:
    """Find the part of a region whose widest tensor is the largest.

    Args:
        ops: Operators of the region.
        shapes: Shape of every value, that of the region's input first.

    Returns:
        The part, or None if nothing would be saved.
    """
    best = (
        min(spans, key=lambda span: (prod(shapes[span.stop]), span.stop))
        for start in range(len(ops))
        if (spans := _span_from(ops, start))
    )
    found = [
        (max(prod(shapes[value]) for value in range(span.start + 1, span.stop)), span)
        for span in best
    ]
    return max(found, key=lambda each: each[0])[1] if found else None


def span_between(names: Sequence[str], ends: tuple[str, str, bool] | None) -> Span | None:
    """Find a part of a region by the names of its first and last call.

    Args:
        names: Name of each operator's call.
        ends: The two names, and whether the part is closed, if known.

    Returns:
        The part, or None if the region lacks one of the calls.
    """
    if ends is None:
        return None
    first, last, closed = ends
    if first not in names or last not in names:
        return None
    return Span(names.index(first), names.index(last) + 1, closed)


def _span_from(ops: Sequence[Op], start: int) -> list[Span]:
    """Return the parts that begin with an operator: one that is closed, or all that are open."""
    if not _dense(ops[start]):
        return []
    users = [sum(value in op.inputs for op in ops) for value in range(len(ops) + 1)]
    ends: list[int] = []  # operators after which few values are left
    place = start + 1
    while place < len(ops) and ops[place].inputs == (place,) and users[place] == 1:
        op = ops[place]
        if _dense(op) and place > start + 1:
            return [Span(start, place + 1, closed=True)]
        if not op.local:
            break
        if isinstance(op, (Convolution, MaxPool, GlobalPool)):
            ends.append(place)
        place += 1
    return [Span(start, end + 1, closed=False) for end in ends]


def _dense(op: Op) -> bool:
    return isinstance(op, Layer) and not op.local


def chunked(ops: Sequence[Op], span: Span, chunks: int) -> tuple[Op, ...]:
    """Replace a part of a region by one operator that computes it in chunks."""
    chain = ops[span.start : span.stop]
    joined = _joined(chain, chain[0].inputs, chunks, closed=span.closed)
    gone = span.stop - span.start - 1
    later = [
        replace(op, inputs=tuple(n - gone if n >= span.stop else n for n in op.inputs))
        for op in ops[span.stop :]
    ]
    return (*ops[: span.start], joined, *later)


def cheap_first(ops: Sequence[Op], modules: Modules) -> tuple[int, ...]:
    """Return the values that may be held, first those whose layers take least time per byte.

    Args:
        ops: Operators of a region.
        modules: The network's modules by name.
    """
    work = {
        index + 1: _macs_per_value(op, modules)
        for index, op in enumerate(ops)
        if op.heavy and index + 1 < len(ops)
    }
    return tuple(sorted(work, key=lambda value: work[value]))


def _macs_per_value(op: Op, modules: Modules) -> float:
    weight = op.parameters(modules)[0]
    if weight is None:
        return 0.0
    macs = prod(weight.shape[1:])
    return macs * DEPTHWISE_COST if op.local else macs


def sliced(ops: Sequence[Op], shapes: Shapes, count: int) -> tuple[tuple[Op, ...], list[int]]:
    """Compute what acts on each channel alone in slices of channels, to the same bits.

    Dense layers stay whole, so that the order of their sums stays, too.

    Args:
        ops: Operators of a region.
        shapes: Their shapes.
        count: Number of slices of each chain of such operators.

    Returns:
        The operators with each chain joined into one, and for each value of the region its number
        among theirs. Values within chains have the number of the chain's output.
    """
    users = [sum(value in op.inputs for op in ops) for value in range(len(ops) + 1)]
    found: list[Op] = []
    numbers = [0]
    place = 0
    while place < len(ops):
        stop = _chain_from(ops, shapes, users, place)
        inputs = tuple(numbers[value] for value in ops[place].inputs)
        if stop is None:
            found.append(replace(ops[place], inputs=inputs))
            stop = place + 1
        else:
            found.append(_joined(ops[place:stop], inputs, count, opened=True))
        numbers += [len(found)] * (stop - place)
        place = stop
    return tuple(found), numbers


def _chain_from(ops: Sequence[Op], shapes: Shapes, users: Sequence[int], start: int) -> int | None:
    """Return where a chain ends that begins with an operator, or None if none begins.

    It ends with a depthwise convolution, whose output may then be held.
    """
    stop = start
    while stop < len(ops):
        op = ops[stop]
        follows = stop == start or (op.inputs == (stop,) and users[stop] == 1)
        images = len(op.inputs) == 1 and len(shapes[op.inputs[0]]) == IMAGE_DIMENSIONS
        if not (op.local and op.same_in_slices and images and follows):
            break
        stop += 1
        if op.heavy:
            break
    gains = any(op.heavy or isinstance(op, BatchNorm) for op in ops[start:stop])
    return stop if gains else None


def _joined(
    ops: Sequence[Op],
    inputs: tuple[int, ...],
    chunks: int,
    *,
    opened: bool = False,
    closed: bool = False,
) -> Chunked:
    inner = tuple(replace(op, inputs=(place,)) for place, op in enumerate(ops))
    return Chunked(
        inputs,
        tuple(name for op in inner for name in op.tensors),
        ops=inner,
        opened=opened,
        closed=closed,
        chunks=chunks,
    )
