"""Decide what a region holds for its backward pass, and when it computes values again.

Everything here is about numbers of values and operators, not about tensors. Value 0 is the region's
input, and value ``i + 1`` is the output of operator ``i``.
"""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dse.engines.op import OUTPUT, Op, Wanted

Hold = Literal["dense", "input"]
"""What may be held: the outputs of convolutions and linear layers, or the region's input alone."""


@dataclass(frozen=True)
class Again:
    """One operator to run again.

    Attributes:
        op: Number of the operator.
        in_place: Whether it overwrites its first input.
        done: Values that nothing reads after this.
    """

    op: int
    in_place: bool
    done: tuple[int, ...]


@dataclass(frozen=True)
class OpBackward:
    """One operator's backward pass.

    Attributes:
        op: Number of the operator.
        again: Operators to run before, in order.
        reads: Values that it reads.
        wanted: Which gradients it returns.
        done: Values that nothing reads after this.
        spends: Whether its first input has memory of its own that nothing needs afterwards.
    """

    op: int
    again: tuple[Again, ...]
    reads: frozenset[int]
    wanted: Wanted
    done: tuple[int, ...]
    spends: bool


@dataclass(frozen=True)
class Schedule:
    """The forward and the backward pass of a region.

    Attributes:
        in_place: For each operator, whether its first run overwrites its first input.
        done: For each operator, the values that nothing reads after its first run.
        held: Values that stay until the backward pass, in order.
        kept: Operators whose small tensors stay until the backward pass.
        steps: The backward pass, last operator first.
        owned: Values with memory of their own, that nothing needs after their last use.
        packable: Held values that may be held in fewer bits: neither an input that needs no
            gradient, such as the images, which live anyhow, nor the region's output.
    """

    in_place: tuple[bool, ...]
    done: tuple[tuple[int, ...], ...]
    held: tuple[int, ...]
    kept: frozenset[int]
    steps: tuple[OpBackward, ...]
    owned: frozenset[int]
    packable: frozenset[int]


def make_schedule(
    ops: Sequence[Op],
    traits: Sequence[Hashable],
    *,
    input_wanted: bool,
    parameters_wanted: Sequence[tuple[bool, ...]],
    hold: Hold,
    holds_output: bool,
    rerun: Collection[int] = (),
) -> Schedule:
    """Make the schedule of a region.

    Args:
        ops: Operators in order. The last one's output is the region's.
        traits: What ``Op.trait`` returned for each.
        input_wanted: Whether the region's input needs a gradient.
        parameters_wanted: Which parameters of each operator need a gradient.
        hold: What may be held.
        holds_output: Whether the output stays alive anyhow, so that it may be held, too.
        rerun: Values that may not be held.
    """
    wanted = _wanted(ops, input_wanted=input_wanted, parameters=parameters_wanted)
    last = len(ops)
    reads = {
        index: frozenset(
            index + 1 if place == OUTPUT else op.inputs[place]
            for place in op.needs(wanted[index], traits[index])
        )
        for index, op in enumerate(ops)
        if wanted[index]
    }
    may_hold = {0}
    if hold == "dense":
        may_hold |= {index + 1 for index, op in enumerate(ops) if op.heavy}
        # The region's own output is only held where it costs nothing.
        may_hold -= {last}
        may_hold |= {last} if holds_output else set()
    may_hold -= set(rerun)
    _read_before(ops, reads, may_hold)
    steps, held, rerun = _backward(ops, reads, wanted, may_hold)
    kept = frozenset(reads) | rerun
    in_place, done = _forward(ops, held)
    owned = frozenset(value for value in held if _owned(ops, value, ()))
    packable = frozenset(held) - {last} - (frozenset() if input_wanted else {0})
    return Schedule(in_place, done, tuple(sorted(held)), kept, tuple(steps), owned, packable)


def _wanted(
    ops: Sequence[Op], *, input_wanted: bool, parameters: Sequence[tuple[bool, ...]]
) -> list[Wanted]:
    needs = [input_wanted]
    wanted = []
    for op, own in zip(ops, parameters, strict=True):
        one = Wanted(tuple(needs[value] for value in op.inputs), own)
        wanted.append(one)
        needs.append(bool(one))
    return wanted


def _read_before(
    ops: Sequence[Op], reads: dict[int, frozenset[int]], may_hold: Collection[int]
) -> None:
    """Let activations read their input where nothing else needs their output computed again."""
    for index, own in reads.items():
        output = index + 1
        others = (each for other, each in reads.items() if other != index)
        spared = output not in may_hold and not any(output in each for each in others)
        if ops[index].either and own == {output} and spared:
            reads[index] = frozenset(ops[index].inputs)


def _forward(
    ops: Sequence[Op], held: Collection[int]
) -> tuple[tuple[bool, ...], tuple[tuple[int, ...], ...]]:
    last_use = {value: index for index, op in enumerate(ops) for value in op.inputs}
    in_place = []
    done = []
    for index, op in enumerate(ops):
        ends = [value for value in dict.fromkeys(op.inputs) if last_use[value] == index]
        first = op.inputs[0]
        in_place.append(op.elementwise and first in ends and _owned(ops, first, held))
        done.append(tuple(ends))
    return tuple(in_place), tuple(done)


def _owned(ops: Sequence[Op], value: int, held: Collection[int]) -> bool:
    """Whether a value has memory of its own that need not last."""
    if value == 0 or value in held or ops[value - 1].views:
        return False
    return not any(op.views for op in ops if value in op.inputs)


@dataclass
class _Walk:
    """The walk back through a region's operators.

    Attributes:
        ops: The operators.
        may_hold: Values that may be held.
        alive: Values that were computed again and are still there.
        held_until: For each value that must be held, the step that uses it last.
    """

    ops: Sequence[Op]
    may_hold: set[int]
    alive: set[int] = field(default_factory=set)
    held_until: dict[int, int] = field(default_factory=dict)

    def make(self, value: int, step: int, run: list[int]) -> None:
        """Note what must be held or run again so that a value exists at a step."""
        if value in self.alive:
            return
        if value in self.may_hold:
            self.held_until[value] = step
            return
        for source in self.ops[value - 1].inputs:
            self.make(source, step, run)
        self.alive.add(value)
        run.append(value - 1)


def _backward(
    ops: Sequence[Op],
    reads: dict[int, frozenset[int]],
    wanted: Sequence[Wanted],
    may_hold: set[int],
) -> tuple[list[OpBackward], set[int], frozenset[int]]:
    """Walk back through the operators. Return the steps, the held values and what is run again."""
    order = sorted(reads, reverse=True)
    last_read = {value: index for index in order for value in reads[index]}
    walk = _Walk(ops, may_hold)
    plans: list[list[int]] = []
    dropped: list[list[int]] = []
    for position, index in enumerate(order):
        run: list[int] = []
        for value in sorted(reads[index]):
            walk.make(value, position, run)
        plans.append(run)
        # Values that only led to others are gone, too.
        gone = sorted(value for value in walk.alive if last_read.get(value, index) >= index)
        dropped.append(gone)
        walk.alive -= set(gone)
    held = set(walk.held_until)
    steps = []
    for position, index in enumerate(order):
        leaving = dropped[position]
        again = _ordered(ops, plans[position], reads[index], set(leaving), held)
        early = {value for one in again for value in one.done}
        ends = [value for value in leaving if value not in early]
        ends += sorted(value for value, until in walk.held_until.items() if until == position)
        first = ops[index].inputs[0]
        spends = first in ends and _owned(ops, first, ())
        one = OpBackward(index, tuple(again), reads[index], wanted[index], tuple(ends), spends)
        steps.append(one)
    return steps, held, frozenset(one for run in plans for one in run)


def _ordered(
    ops: Sequence[Op],
    run: Sequence[int],
    reads: frozenset[int],
    leaving: set[int],
    held: set[int],
) -> list[Again]:
    """Tell for each operator that is run again which values end with it."""
    again = []
    for place, index in enumerate(run):
        later = {value for other in run[place + 1 :] for value in ops[other].inputs}
        ends = tuple(
            value
            for value in dict.fromkeys(ops[index].inputs)
            if value in leaving and value not in later and value not in reads
        )
        first = ops[index].inputs[0]
        in_place = ops[index].elementwise and first in ends and _owned(ops, first, held)
        again.append(Again(index, in_place, ends))
    return again
