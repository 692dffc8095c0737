"""Run a region of operators as one autograd node that holds no more than its schedule says."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dse.engines.layouts import Layout, laid_out_as_stock, layout_of
from dse.engines.op import Call, Grads, Modules, Op, refuse_second_derivative
from dse.engines.packing import Packed, packed
from dse.engines.schedule import Hold, Schedule, make_schedule


@dataclass
class Saved:
    """What one run leaves for its backward pass.

    Attributes:
        values: Held values by number.
        kept: Small tensors by operator.
        layouts: Layout of every value.
    """

    values: dict[int, Tensor | Packed]
    kept: dict[int, tuple[Tensor, ...]]
    layouts: list[Layout]


def run_forward(
    ops: Sequence[Op],
    schedule: Schedule,
    value: Tensor,
    *,
    parameters: Sequence[Grads],
    states: Sequence[Any],
    packs: Collection[int] = (),
) -> tuple[Tensor, Saved]:
    """Run operators in order and drop every value after its last use, unless it is held.

    Args:
        ops: The operators.
        schedule: Their schedule.
        value: Value 0.
        parameters: Parameters of each operator.
        states: State of each operator.
        packs: Held values to hold in 8 bits.

    Returns:
        The last operator's output, and what the backward pass needs.
    """
    values = {0: value}
    saved = Saved({}, {}, [layout_of(value)])
    for index, op in enumerate(ops):
        output, kept = op.forward(
            [values[number] for number in op.inputs],
            parameters[index],
            states[index],
            in_place=schedule.in_place[index],
        )
        values[index + 1] = output
        saved.layouts.append(layout_of(output))
        if index in schedule.kept:
            saved.kept[index] = kept
        del output, kept
        for number in schedule.done[index]:
            if number in packs:
                spend = number in schedule.owned
                saved.values[number] = packed(values[number], spend=spend)
            elif number in schedule.held:
                saved.values[number] = values[number]
            del values[number]
    last = len(ops)
    if last in schedule.held:
        saved.values[last] = values[last]
    return values[last], saved


def run_backward(
    ops: Sequence[Op],
    schedule: Schedule,
    grad: Tensor,
    *,
    saved: Saved,
    parameters: Sequence[Grads],
    states: Sequence[Any],
    owns_grad: bool = False,
    owns_held: bool = False,
) -> tuple[Tensor | None, list[Grads]]:
    """Differentiate what ``run_forward`` ran.

    Args:
        ops: The operators.
        schedule: Their schedule.
        grad: Gradient of the output.
        saved: What the run left. It is emptied on the way.
        parameters: Parameters of each operator.
        states: State of each operator.
        owns_grad: Whether the output's gradient may be overwritten.
        owns_held: Whether held values may be overwritten.

    Returns:
        Gradient of value 0, and gradients of each operator's parameters.
    """
    values = saved.values
    grads: dict[int, Tensor] = {len(ops): grad}
    ours = {len(ops)} if owns_grad else set()  # values whose gradient nobody else holds
    del grad
    of_parameters: list[Grads] = [[None] * len(each) for each in parameters]
    for step in schedule.steps:
        for again in step.again:
            op = ops[again.op]
            values[again.op + 1] = op.again(
                [_unpacked(values, number) for number in op.inputs],
                parameters[again.op],
                states[again.op],
                saved.kept.get(again.op, ()),
                in_place=again.in_place,
            )
            for number in again.done:
                del values[number]
        index, op = step.op, ops[step.op]
        call = Call(
            parameters=parameters[index],
            state=states[index],
            kept=saved.kept.pop(index, ()),
            wanted=step.wanted,
            layouts=[saved.layouts[number] for number in op.inputs],
            overwrite=index + 1 in ours,
            spend=step.spends and (owns_held or op.inputs[0] not in schedule.held),
        )
        of_inputs, of_parameters[index] = op.backward(
            grads.pop(index + 1),
            [_unpacked(values, number) if number in step.reads else None for number in op.inputs],
            _unpacked(values, index + 1) if index + 1 in values else None,
            call,
        )
        del call
        for number in step.done:
            del values[number]
        for number, of_input in zip(op.inputs, of_inputs, strict=True):
            if of_input is None:
                continue
            if number in grads:
                before = grads[number]
                total = before.add_(of_input) if number in ours else before + of_input
                # Autograd overwrites the gradient that came first.
                grads[number] = laid_out_as_stock(total, in_place=False, overwritten=before)
                del before, total
                ours.add(number)
            else:
                grads[number] = of_input
                if op.fresh:
                    ours.add(number)
        del of_inputs
    return grads.get(0), of_parameters


def _unpacked(values: dict[int, Tensor | Packed], number: int) -> Tensor:
    """Return a value. One in 8 bits is unpacked in the table when it is first read."""
    found = values[number]
    if isinstance(found, Packed):
        values[number] = found = found.value()
    return found


@dataclass
class Region:
    """Operators that run as one autograd node.

    Attributes:
        ops: Operators in order.
        hold: What may be held.
        holds_output: Whether the output stays alive anyhow.
        rerun: Values that may not be held.
        packs: Whether values are held in 8 bits.
    """

    ops: tuple[Op, ...]
    hold: Hold = "dense"
    holds_output: bool = False
    rerun: frozenset[int] = frozenset()
    packs: bool = False
    _schedules: dict[Hashable, Schedule] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, value: Tensor, modules: Modules) -> Tensor:
        """Run the region."""
        parameters = [op.parameters(modules) for op in self.ops]
        states = [op.state(modules, first=True) for op in self.ops]
        flat = [tensor for each in parameters for tensor in each]
        counts = [len(each) for each in parameters]
        output: Tensor = _Run.apply(self, counts, states, value, *flat)
        return output

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """The schedules that its runs have followed so far."""
        return tuple(self._schedules.values())

    def schedule(
        self, states: Sequence[Any], *, input_wanted: bool, wanted: Sequence[tuple[bool, ...]]
    ) -> Schedule:
        """Return the schedule for the gradients that are wanted."""
        traits = tuple(op.trait(state) for op, state in zip(self.ops, states, strict=True))
        key = (traits, input_wanted, tuple(wanted))
        if key not in self._schedules:  # the same in every step, as a rule
            self._schedules[key] = make_schedule(
                self.ops,
                traits,
                input_wanted=input_wanted,
                parameters_wanted=wanted,
                hold=self.hold,
                holds_output=self.holds_output,
                rerun=self.rerun,
            )
        return self._schedules[key]


class _Run(torch.autograd.Function):
    """The autograd node of a region."""

    @staticmethod
    def forward(
        ctx: Any,
        region: Region,
        counts: Sequence[int],
        states: Sequence[Any],
        value: Tensor,
        *flat: Tensor | None,
    ) -> Tensor:
        needs = ctx.needs_input_grad[3:]
        wanted = grouped(needs[1:], counts)
        schedule = region.schedule(states, input_wanted=needs[0], wanted=wanted)
        parameters = grouped(flat, counts)
        packs = schedule.packable if region.packs else ()
        output, saved = run_forward(
            region.ops, schedule, value, parameters=parameters, states=states, packs=packs
        )
        ctx.region, ctx.schedule, ctx.states, ctx.counts = region, schedule, states, counts
        ctx.layouts = saved.layouts
        ctx.values, values = _flat(saved.values)
        ctx.kept = [(index, len(kept)) for index, kept in saved.kept.items()]
        kept = [tensor for each in saved.kept.values() for tensor in each]
        ctx.save_for_backward(*values, *kept, *flat)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        refuse_second_derivative()
        saved, parameters = _taken(ctx)
        of_value, of_parameters = run_backward(
            ctx.region.ops,
            ctx.schedule,
            grads[0],
            saved=saved,
            parameters=parameters,
            states=ctx.states,
            owns_held=not _graph_is_kept(),
        )
        flat = [grad for each in of_parameters for grad in each]
        return (None, None, None, of_value, *flat)


def _graph_is_kept() -> bool:
    """Whether another backward pass through the same graph may follow."""
    return torch._C._autograd._get_current_graph_task_keep_graph()  # noqa: SLF001  # no public name


def _taken(ctx: Any) -> tuple[Saved, list[Grads]]:
    """Take the saved tensors over from autograd, so that they can be dropped on the way."""
    tensors = list(ctx.saved_tensors)
    ctx.maybe_clear_saved_tensors()
    values: dict[int, Tensor | Packed] = {}
    held = 0
    for number, count in ctx.values:
        own = tensors[held : held + count]
        values[number] = own[0] if count == 1 else Packed(*own)
        held += count
    kept = {}
    for index, count in ctx.kept:
        kept[index] = tuple(tensors[held : held + count])
        held += count
    return Saved(values, kept, ctx.layouts), grouped(tensors[held:], ctx.counts)


def _flat(values: Mapping[int, Tensor | Packed]) -> tuple[list[tuple[int, int]], list[Tensor]]:
    """Return the number of each value with how many tensors it is, and these tensors."""
    each = {
        number: [one.codes, one.low, one.step] if isinstance(one, Packed) else [one]
        for number, one in values.items()
    }
    counts = [(number, len(own)) for number, own in each.items()]
    return counts, [tensor for own in each.values() for tensor in own]


def grouped(flat: Sequence[Any], counts: Sequence[int]) -> list[Any]:
    """Divide a sequence into tuples of the given lengths."""
    groups, start = [], 0
    for count in counts:
        groups.append(tuple(flat[start : start + count]))
        start += count
    return groups
