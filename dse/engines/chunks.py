"""Compute a wide tensor in chunks of channels, so that it never exists as a whole.

A depthwise convolution, a batch normalisation and an activation act on each channel alone. Between
the dense layer that makes the channels and the dense layer that sums over them, a block can
therefore be computed for a few channels at a time. Nothing is approximated: statistics are those of
the whole batch, as every chunk sees all images. Only the order of the sums differs, and that of the
dense layers' sums alone.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import gcd, prod
from typing import Any

import torch
from torch import Tensor

from dse.engines.dense import Convolution, Layer
from dse.engines.layouts import Layout, laid_out_in, layout_of
from dse.engines.op import Call, Grads, Modules, Op, Slice, Wanted, present
from dse.engines.region import Saved, grouped, run_backward, run_forward
from dse.engines.schedule import Schedule, make_schedule
from dse.engines.shapes import MaxPool
from dse.memory_formats import memory_format_of
from dse.networks.slots import chunk_sizes

REGISTER = 16  # channels that a kernel computes together
LEAST = 4  # channels of a chunk


def chunk_size(parts: int, chunks: int) -> int:
    """Return how many of a tensor's equal parts a chunk has. Kernels like whole registers.

    A chunk of a wider tensor has 4 parts at least, as fewer channels may take another kernel, which
    sums in another order.
    """
    step = min(parts, max(LEAST, -(-parts // chunks)))
    return -(-step // REGISTER) * REGISTER if parts >= 2 * REGISTER else step


def sizes_of_chunks(parts: int, chunks: int) -> tuple[int, ...]:
    """Return the sizes of the chunks of a tensor's equal parts."""
    step = chunk_size(parts, chunks)
    sizes = [min(step, parts - start) for start in range(0, parts, step)]
    if len(sizes) > 1 and sizes[-1] < LEAST:
        sizes[-2:] = [sizes[-2] + sizes[-1]]
    return tuple(sizes)


def sizes_of_slices(parts: int, slices: int) -> tuple[int, ...]:
    """Return the sizes of slices whose channels lie beside each other in memory.

    PyTorch computes whole registers of values, and those left over one by one, which rounds
    otherwise. So every slice but the last fills whole registers.
    """
    step = -(-parts // (slices * REGISTER)) * REGISTER
    sizes = [min(step, parts - start) for start in range(0, parts, step)]
    if len(sizes) > 1 and sizes[-1] < LEAST:
        sizes[-2:] = [sizes[-2] + sizes[-1]]
    return tuple(sizes)


@dataclass
class _Running:
    """The state of one run.

    Attributes:
        states: State of each operator.
        runs: For each chunk, the layouts of its values, and how many small tensors each operator
            keeps.
    """

    states: list[Any]
    runs: list[tuple[list[Layout], list[tuple[int, int]]]] = field(default_factory=list)


@dataclass(frozen=True)
class Chunked(Op):
    """A chain of operators, computed in chunks of channels.

    Attributes:
        ops: The chain. Each operator reads the one before.
        opened: Whether the input is divided into chunks, too. Otherwise the first operator is a
            dense layer, which makes the channels of each chunk.
        closed: Whether the last operator is a dense layer that sums over the channels.
        chunks: Number of chunks, if there are as many channels.
    """

    ops: tuple[Op, ...] = ()
    opened: bool = False
    closed: bool = False
    chunks: int = 1

    @property
    def heavy(self) -> bool:  # type: ignore[override]  # depends on the chain
        """Whether the chain is too costly to run again unless memory demands it."""
        return not self.opened or self.ops[-1].heavy

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
        all_ = Wanted((True,), (True,) * len(parameters))
        schedule = self.schedule_for(self.trait(state), all_)
        own = self._by_op(parameters)
        output: Tensor | None = None
        kept: list[Tensor] = []
        state.runs.clear()
        for chunk in self._slices(own, layout_of(inputs[0])):
            part, saved = run_forward(
                self.ops,
                schedule,
                self._entry(inputs[0], chunk),
                parameters=self._sliced(own, chunk),
                states=self._states(state, chunk),
            )
            state.runs.append((saved.layouts, [(i, len(each)) for i, each in saved.kept.items()]))
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
        slices = self._slices(own, layout_of(inputs[0]))
        for chunk, saved in zip(slices, _runs_of(state, kept), strict=True):
            part = self._entry(inputs[0], chunk)
            for index, (op, each, one) in enumerate(
                zip(self.ops, self._sliced(own, chunk), self._states(state, chunk), strict=True)
            ):
                part = op.again([part], each, one, saved.kept.get(index, ()), in_place=False)
            output = self._joined(output, part, chunk)
        return present(output)

    def needs(self, wanted: Wanted, trait: Hashable) -> frozenset[int]:
        """Return the input, if anything is computed from it."""
        return frozenset([0] if 0 in self.schedule_for(trait, wanted).held else [])

    def backward(
        self, grad: Tensor, inputs: Sequence[Tensor | None], output: Tensor | None, call: Call
    ) -> tuple[Grads, Grads]:
        """Differentiate one chunk after the other."""
        schedule = self.schedule_for(self.trait(call.state), call.wanted)
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
        if self.opened and call.wanted.inputs[0]:
            spends = call.spend and inputs[0] is not None
            of_input = inputs[0] if spends else call.layouts[0].empty(grad)
        found = call.layouts[0].memory_format
        runs = _runs_of(call.state, call.kept)
        slices = self._slices(own, call.layouts[0])
        for chunk, saved in zip(slices, runs, strict=True):
            if inputs[0] is not None:
                saved.values[0] = self._entry(inputs[0], chunk)
            part, of_parameters = run_backward(
                self.ops,
                schedule,
                grad if self.closed else _part(grad, chunk),
                saved=saved,
                parameters=self._sliced(own, chunk),
                states=self._states(call.state, chunk),
                owns_grad=not self.closed,
            )
            for targets, grads in zip(self._sliced(full, chunk), of_parameters, strict=True):
                for target, one in zip(targets, grads, strict=True):
                    if target is not None and one is not None:
                        target.copy_(one)
            del of_parameters
            if self.opened and part is not None and of_input is not None:
                chunk.of(of_input, 1).copy_(part)
                found = memory_format_of(part)
            elif part is not None and not self.opened:
                of_input = part if of_input is None else of_input.add_(part)
            del part
        if self.opened and of_input is not None:
            laid_out_in(of_input, found)  # no sooner: it may be the input, too
        return [of_input], [one for each in full for one in each]

    def schedule_for(self, traits: Hashable, wanted: Wanted) -> Schedule:
        """Return the schedule of each chunk."""
        return _schedule(
            self.ops,
            traits,
            input_wanted=wanted.inputs[0],
            parameters_wanted=tuple(self._by_op(wanted.parameters)),
        )

    def _by_op(self, flat: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Divide a sequence with an entry per parameter among the operators."""
        return grouped(flat, [len(op.tensors) for op in self.ops])

    def _entry(self, value: Tensor, chunk: Slice) -> Tensor:
        return _part(value, chunk) if self.opened else value

    def _slices(self, parameters: Sequence[Grads], entry: Layout) -> Iterator[Slice]:
        channels = entry.shape[1] if self.opened else present(parameters[0][0]).shape[0]
        groups = [op.groups for op in self.ops if isinstance(op, Convolution) and op.local]
        parts = gcd(channels, *groups)
        start = 0
        sizes = sizes_of_slices if self._interleaved(entry) else sizes_of_chunks
        for size in chunk_sizes(parts, self.chunks, sizes):
            yield Slice(start, start + size, parts)
            start += size

    def _interleaved(self, entry: Layout) -> bool:
        """Whether to the same bits a slice is needed, and channels lie beside each other."""
        pools = any(isinstance(op, MaxPool) for op in self.ops)  # perhaps to one pixel
        one = prod(entry.shape[2:]) == 1
        last = entry.memory_format != torch.contiguous_format
        return self.opened and (pools or one or last)

    def _sliced(self, parameters: Sequence[Grads], chunk: Slice) -> list[tuple[Any, ...]]:
        last = len(self.ops) - 1
        sliced = []
        for index, (op, each) in enumerate(zip(self.ops, parameters, strict=True)):
            if index == 0 and isinstance(op, Layer) and not self.opened:
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
            shape = (part.shape[0], channels, *part.shape[2:])
            output = _empty(part, shape)
        chunk.of(output, 1).copy_(part)
        return output


@lru_cache(maxsize=1024)  # the same in every step
def _schedule(
    ops: tuple[Op, ...],
    traits: tuple[Hashable, ...],
    *,
    input_wanted: bool,
    parameters_wanted: tuple[tuple[bool, ...], ...],
) -> Schedule:
    return make_schedule(
        ops,
        traits,
        input_wanted=input_wanted,
        parameters_wanted=parameters_wanted,
        hold="input",
        holds_output=False,
    )


def _empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    return Layout(torch.Size(shape), memory_format_of(like)).empty(like)


def _part(whole: Tensor, chunk: Slice) -> Tensor:
    """Return a copy of a chunk, laid out like the whole: kernels are fast on nothing else.

    It is a copy even where the chunk is laid out so itself, so that what a step holds does not
    depend on the number of channels.
    """
    return chunk.of(whole, 1).clone(memory_format=memory_format_of(whole))


def _runs_of(state: _Running, kept: Sequence[Tensor]) -> Iterator[Saved]:
    """Yield what each chunk's forward run kept."""
    start = 0
    for layouts, counts in state.runs:
        own = {}
        for index, count in counts:
            own[index] = tuple(kept[start : start + count])
            start += count
        yield Saved({}, own, list(layouts))
