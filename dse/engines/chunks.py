"""Compute a wide tensor in chunks of channels, so that it never exists as a whole.

A depthwise convolution, a batch normalisation and an activation act on each channel alone. Between
the dense layer that makes the channels and the dense layer that sums over them, a block can
therefore be computed for a few channels at a time. Nothing is approximated: statistics are those of
the whole batch, as every chunk sees all images. Only the order of the sums differs.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import gcd, prod
from typing import Any, ClassVar

import torch
from torch import Tensor

from dse.engines.dense import Convolution, Layer
from dse.engines.op import Call, Grads, Modules, Op, Slice, Wanted, present
from dse.engines.region import Saved, run_backward, run_forward
from dse.engines.schedule import Schedule, make_schedule
from dse.engines.shapes import GlobalPool, MaxPool
from dse.networks.slots import chunk_sizes

REGISTER = 16  # channels that a kernel computes together


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


def find_span(ops: Sequence[Op], shapes: Sequence[Sequence[int]]) -> Span | None:
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
    inner = tuple(
        replace(op, inputs=(place,)) for place, op in enumerate(ops[span.start : span.stop])
    )
    joined = Chunked(
        ops[span.start].inputs,
        tuple(name for op in inner for name in op.tensors),
        ops=inner,
        closed=span.closed,
        chunks=chunks,
    )
    gone = span.stop - span.start - 1
    later = [
        replace(op, inputs=tuple(n - gone if n >= span.stop else n for n in op.inputs))
        for op in ops[span.stop :]
    ]
    return (*ops[: span.start], joined, *later)


def chunk_size(parts: int, chunks: int) -> int:
    """Return how many of a tensor's equal parts a chunk has. Kernels like whole registers."""
    step = -(-parts // chunks)
    return -(-step // REGISTER) * REGISTER if parts >= 2 * REGISTER else step


def sizes_of_chunks(parts: int, chunks: int) -> tuple[int, ...]:
    """Return the sizes of the chunks of a tensor's equal parts."""
    step = chunk_size(parts, chunks)
    return tuple(min(step, parts - start) for start in range(0, parts, step))


@dataclass
class _Running:
    """The state of one run.

    Attributes:
        states: State of each operator.
        runs: For each chunk, the shapes of its values, and how many small tensors each operator
            keeps.
    """

    states: list[Any]
    runs: list[tuple[list[torch.Size], list[tuple[int, int]]]] = field(default_factory=list)


@dataclass(frozen=True)
class Chunked(Op):
    """A chain of operators from a dense layer on, computed in chunks of channels.

    Attributes:
        ops: The chain. Each operator reads the one before.
        closed: Whether the last operator is a dense layer that sums over the channels.
        chunks: Number of chunks, if there are as many channels.
    """

    ops: tuple[Op, ...] = ()
    closed: bool = False
    chunks: int = 1

    heavy: ClassVar[bool] = True

    def state(self, modules: Modules, *, first: bool) -> _Running:
        """Return the states of the operators."""
        return _Running([op.state(modules, first=first) for op in self.ops])

    def trait(self, state: _Running) -> Hashable:
        """Return the traits of the operators."""
        return tuple(op.trait(one) for op, one in zip(self.ops, state.states, strict=True))

    def forward(
        self, inputs: Sequence[Tensor], parameters: Grads, state: _Running, *, in_place: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run the chain for one chunk after the other."""
        schedule = self._schedule(state, Wanted((True,), (True,) * len(parameters)))
        own = self._by_op(parameters)
        output: Tensor | None = None
        kept: list[Tensor] = []
        state.runs.clear()
        for chunk in self._slices(own):
            part, saved = run_forward(
                self.ops,
                schedule,
                inputs[0],
                parameters=self._sliced(own, chunk),
                states=self._states(state, chunk),
            )
            state.runs.append((saved.shapes, [(i, len(each)) for i, each in saved.kept.items()]))
            kept.extend(tensor for each in saved.kept.values() for tensor in each)
            del saved
            output = self._joined(output, part, chunk)
            del part
        return present(output), tuple(kept)

    def again(
        self,
        inputs: Sequence[Tensor],
        parameters: Grads,
        state: _Running,
        kept: Sequence[Tensor],
        *,
        in_place: bool,
    ) -> Tensor:
        """Run the chain once more by the kept statistics."""
        own = self._by_op(parameters)
        output: Tensor | None = None
        for chunk, saved in zip(self._slices(own), _unpacked(state, kept), strict=True):
            part = inputs[0]
            for index, (op, each, one) in enumerate(
                zip(self.ops, self._sliced(own, chunk), self._states(state, chunk), strict=True)
            ):
                part = op.again([part], each, one, saved.kept.get(index, ()), in_place=False)
            output = self._joined(output, part, chunk)
        return present(output)

    def needs(self, wanted: Wanted, trait: Hashable) -> frozenset[int]:
        """Return the input: everything else is computed from it."""
        return frozenset([0])

    def backward(
        self, grad: Tensor, inputs: Sequence[Tensor | None], output: Tensor | None, call: Call
    ) -> tuple[Grads, Grads]:
        """Differentiate one chunk after the other."""
        schedule = self._schedule(call.state, call.wanted)
        own = self._by_op(call.parameters)
        wanted = self._by_op(call.wanted.parameters)
        full: list[list[Tensor | None]] = [
            [
                torch.empty_like(p) if p is not None and w else None
                for p, w in zip(ps, ws, strict=True)
            ]
            for ps, ws in zip(own, wanted, strict=True)
        ]
        of_input: Tensor | None = None
        runs = _unpacked(call.state, call.kept)
        for chunk, saved in zip(self._slices(own), runs, strict=True):
            saved.values[0] = present(inputs[0])
            part, of_parameters = run_backward(
                self.ops,
                schedule,
                grad if self.closed else chunk.of(grad, 1),
                saved=saved,
                parameters=self._sliced(own, chunk),
                states=self._states(call.state, chunk),
            )
            for targets, grads in zip(self._sliced(full, chunk), of_parameters, strict=True):
                for target, one in zip(targets, grads, strict=True):
                    if target is not None and one is not None:
                        target.copy_(one)
            del of_parameters
            if part is not None:
                of_input = part if of_input is None else of_input.add_(part)
            del part
        return [of_input], [one for each in full for one in each]

    def _schedule(self, state: _Running, wanted: Wanted) -> Schedule:
        return make_schedule(
            self.ops,
            self.trait(state),  # type: ignore[arg-type]  # a tuple
            input_wanted=wanted.inputs[0],
            parameters_wanted=self._by_op(wanted.parameters),
            hold="input",
            holds_output=False,
        )

    def _by_op(self, flat: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Divide a sequence with an entry per parameter among the operators."""
        groups, start = [], 0
        for op in self.ops:
            groups.append(tuple(flat[start : start + len(op.tensors)]))
            start += len(op.tensors)
        return groups

    def _slices(self, parameters: Sequence[Grads]) -> Iterator[Slice]:
        weight = present(parameters[0][0])
        groups = [op.groups for op in self.ops if isinstance(op, Convolution) and op.local]
        parts = gcd(weight.shape[0], *groups)
        start = 0
        for size in chunk_sizes(parts, self.chunks, sizes_of_chunks):
            yield Slice(start, start + size, parts)
            start += size

    def _sliced(self, parameters: Sequence[Grads], chunk: Slice) -> list[tuple[Any, ...]]:
        last = len(self.ops) - 1
        sliced = []
        for index, (op, each) in enumerate(zip(self.ops, parameters, strict=True)):
            if index == 0 and isinstance(op, Layer):
                sliced.append(op.first(each, chunk))
            elif index == last and self.closed and isinstance(op, Layer):
                sliced.append(op.last(each, chunk))
            else:
                sliced.append(op.sliced(each, chunk))
        return sliced

    def _states(self, state: _Running, chunk: Slice) -> list[Any]:
        return [op.sliced_state(one, chunk) for op, one in zip(self.ops, state.states, strict=True)]

    def _joined(self, output: Tensor | None, part: Tensor, chunk: Slice) -> Tensor:
        """Add a chunk's part to the output, or put it in its place."""
        if self.closed:
            return part if output is None else output.add_(part)
        if output is None:
            channels = part.shape[1] // (chunk.stop - chunk.start) * chunk.parts
            last = part.ndim == 4 and part.is_contiguous(memory_format=torch.channels_last)  # noqa: PLR2004
            output = _empty(part, channels, channels_last=last and not part.is_contiguous())
        chunk.of(output, 1).copy_(part)
        return output


def _empty(part: Tensor, channels: int, *, channels_last: bool) -> Tensor:
    shape = (part.shape[0], channels, *part.shape[2:])
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=layout)


def _unpacked(state: _Running, kept: Sequence[Tensor]) -> Iterator[Saved]:
    """Yield what each chunk's forward run kept."""
    start = 0
    for shapes, counts in state.runs:
        own = {}
        for index, count in counts:
            own[index] = tuple(kept[start : start + count])
            start += count
        yield Saved({}, own, list(shapes))
