"""Plan a lean step within a budget of memory."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dse.engines.block_costs import Border, Cost, measure_block
from dse.engines.choices import choices
from dse.engines.likeness import likeness
from dse.engines.meter import Known
from dse.engines.network import LeanNetwork
from dse.engines.plan import Choice, LeanPlan
from dse.engines.program import Traced, output_lasts, stages
from dse.engines.solve import Block, Step
from dse.errors import InfeasibleError, NetworkError
from dse.memory.tape import Event, Tape
from dse.memory.trace import step_network, trace_step
from dse.memory_formats import in_format, laid_out
from dse.networks.copies import copied
from dse.step.canonical import Loss, target_of
from dse.step.optimizers import make_optimizer
from dse.step.settings import StepSettings
from dse.units import format_size

_RETRIES = 8


def traced_peak(
    network: nn.Module,
    shape: Sequence[int],
    *,
    settings: StepSettings,
    loss: Loss,
    scheme: str | None = None,
) -> int:
    """Return the peak bytes of a step, stock or lean, found by tracing all of it.

    Args:
        network: The network.
        shape: Shape (batch, channels, height, width) of the images.
        settings: Settings of the step.
        loss: Loss of outputs and labels.
        scheme: Which parameters train. If None, those that train in the network, in its modes.
    """
    return _traced(network, shape, settings=settings, loss=loss, scheme=scheme).peak


def _traced(
    network: nn.Module,
    shape: Sequence[int],
    *,
    settings: StepSettings,
    loss: Loss,
    scheme: str | None = None,
) -> "_Bytes":
    shell = step_network(network, (), (), image_shape=shape[1:], scheme=scheme)
    return _Bytes.of(trace_step(shell, shape, settings=settings, loss=loss))


@dataclass(frozen=True)
class _Bytes:
    """What a traced step holds: at its peak, throughout, and while the optimizer runs."""

    peak: int
    resident: int
    optimizer: int

    @classmethod
    def of(cls, tape: Tape) -> "_Bytes":
        sizes = [prod(dims) for dims in tape.dims]
        held = peak = optimizer = 0
        for event, buffer, site in tape.events:
            if event in (Event.BIRTH, Event.DEATH):
                held += sizes[buffer] if event == Event.BIRTH else -sizes[buffer]
            peak = max(peak, held)
            if tape.sites[site].phase == "optimizer":
                optimizer = max(optimizer, held)
        lasting = ("weights", "buffers", "optimizer_state", "input")
        resident = sum(
            size for size, kind in zip(sizes, tape.category, strict=True) if kind in lasting
        )
        return cls(peak, resident, optimizer)


@dataclass(frozen=True)
class Planner:
    """Everything that plans for one network and one kind of step share.

    Attributes:
        network: The network at its first plan.
        shape: Shape of the images.
        settings: Settings of the step.
        loss: Loss of outputs and labels.
        step: What every choice of every block costs.
        options: The choices of every block, the loss excluded.
    """

    network: LeanNetwork
    shape: tuple[int, ...]
    settings: StepSettings
    loss: Loss
    step: Step
    options: tuple[tuple[Choice, ...], ...]

    @classmethod
    def of(
        cls,
        network: LeanNetwork,
        example_input: Tensor,
        *,
        settings: StepSettings,
        loss: Loss,
        bit_identical: bool = False,
        follow: bool = False,
    ) -> "Planner":
        """Measure what every choice of every block costs.

        Args:
            network: The network at its first plan.
            example_input: Images.
            settings: Settings of the step.
            loss: Loss of outputs and labels.
            bit_identical: Whether chunks, which change the order of sums, are left out.
            follow: Whether each block's only choices are to run as stock PyTorch or, last, to do
                what the network's plan says.

        Raises:
            NetworkError: If the network as a whole can't be traced.
        """
        shape = tuple(example_input.shape)
        shell = step_network(network, (), (), image_shape=shape[1:], scheme=None)
        if not isinstance(shell, LeanNetwork):
            raise TypeError(f"{type(shell).__name__} is not lean")
        found = shell.division().parts.get("")
        if found is None or not found.parts[-1].segment.output:
            raise NetworkError(
                f"{type(network.stock).__name__} can't be traced as a whole to one output, and a "
                "plan within a budget takes that: leave budget off"
            )
        in_format(shell.stock, settings.memory_format)
        keeps = settings.accumulate > 1 or not settings.set_to_none
        blocks, options = _blocks(
            shell,
            found,
            shape,
            settings=settings,
            loss=loss,
            keeps=keeps,
            bit_identical=bit_identical,
            follow=shell.lean_plan if follow else None,
        )
        whole = _traced(network, shape, settings=settings, loss=loss)
        gradients = sum(_bytes(p) for p in network.parameters() if p.requires_grad)
        resident = whole.resident + (gradients if keeps else 0)
        # An optimizer that allocates nothing leaves no event while all that is resident lives. In
        # the backward pass, what it needs is part of the blocks' own costs.
        optimizer = 0 if settings.optimizer_in_backward else whole.optimizer
        step = Step(tuple(blocks), resident, max(optimizer, resident))
        return cls(network, shape, settings, loss, step, tuple(options))

    def plan(self, chosen: Sequence[int]) -> LeanPlan:
        """Return a plan of the choices."""
        stock = [0] * len(self.step.blocks)
        (program,) = self.network.lean_plan.programs
        segments = tuple(
            replace(segment, **options[choice]._asdict())
            for segment, options, choice in zip(
                program.segments, self.options, chosen[:-1], strict=True
            )
        )
        return LeanPlan(
            (replace(program, segments=segments),),
            peak_bytes=self.step.peak_bytes(chosen),
            stock_peak_bytes=self.step.peak_bytes(stock),
            time=self.step.seconds(chosen) / self.step.seconds(stock),
        )

    def least(self) -> LeanPlan:
        """Return the plan of least memory, and among those the fastest."""
        chosen = self.step.best(self.step.least_bytes())
        if chosen is None:
            raise RuntimeError("the least peak has no plan")
        return self._traced(self.plan(chosen))

    def within(self, budget_bytes: int) -> LeanPlan:
        """Return the fastest plan within a budget. Its peak is that of the traced step.

        Raises:
            InfeasibleError: If no plan fits.
        """
        room = budget_bytes
        for _ in range(_RETRIES):
            chosen = self.step.best(room)
            if chosen is None:
                break
            plan = self._traced(self.plan(chosen))
            if plan.peak_bytes is not None and plan.peak_bytes > budget_bytes:
                room -= plan.peak_bytes - budget_bytes
                continue
            return plan
        least = self.least().peak_bytes
        raise InfeasibleError(
            f"no plan of this step fits into {format_size(budget_bytes)} ({budget_bytes:,} bytes): "
            f"the least takes {least:,} bytes; raise the budget, or lower the batch size or the "
            "image size"
        )

    def _traced(self, plan: LeanPlan) -> LeanPlan:
        """Put the peak of the traced step in place of the composed one."""
        network = self.network.with_plan(plan)
        peak = traced_peak(network, self.shape, settings=self.settings, loss=self.loss)
        return replace(plan, peak_bytes=peak)


def _blocks(
    shell: LeanNetwork,
    found: Traced,
    shape: Sequence[int],
    *,
    settings: StepSettings,
    loss: Loss,
    keeps: bool,
    bit_identical: bool,
    follow: LeanPlan | None = None,
) -> tuple[list[Block], list[tuple[Choice, ...]]]:
    modules = dict(shell.stock.named_modules(remove_duplicate=False))
    image = laid_out(torch.empty(*shape, device="meta"), settings.memory_format)
    entry = Border(image.shape, image.stride(), image.dtype, needs_grad=False, resident=True)
    packs = shell.lean_plan.programs[0].packs
    known: Known = {}
    seen: dict[Hashable, tuple[tuple[Cost, ...], Border]] = {}
    lasts = False
    largest = max((prod(dims) for part in found.parts for dims in part.shapes), default=0)
    blocks: list[Block] = []
    options: list[tuple[Choice, ...]] = []
    for place, part in enumerate(found.parts):
        own = part.segment.tensors(modules)
        trains = entry.needs_grad or any(parameter.requires_grad for parameter in own)
        open_ = choices(part, largest=largest) if trains else choices(part)[:1]
        if bit_identical:
            open_ = tuple(choice for choice in open_ if choice.level != "chunked")
        if follow is not None:
            planned = follow.programs[0].segments[place]
            open_ = tuple(dict.fromkeys([open_[0], planned.choice]))
        key = (likeness(part.segment, modules), entry, lasts, open_, output_lasts(found, place))
        if key not in seen:
            found_costs: list[Cost] = []
            leaves = entry
            for stage in stages(found, place, open_, packs=packs):
                cost, leaves = measure_block(
                    partial(stage, modules=modules),
                    entry,
                    parameters=own,
                    keeps_gradients=keeps,
                    input_may_last=lasts,
                    known=known,
                    optimizer=_updating(own, settings),
                )
                found_costs.append(cost)
            seen[key] = tuple(found_costs), leaves
        costs, leaves = seen[key]
        elsewhere = keeps or settings.optimizer_in_backward
        gradients = 0 if elsewhere else sum(_bytes(p) for p in own if p.requires_grad)
        blocks.append(Block(costs, entry.bytes, gradients))
        options.append(open_)
        entry, lasts = leaves, any(cost.holds_output for cost in costs)
    labels = target_of(loss).example(shape[0], device="meta")
    loss = copied(loss).to("meta") if isinstance(loss, nn.Module) else loss

    def scored(outputs: Tensor) -> Tensor:
        value = loss(outputs, labels)
        return value / settings.accumulate if settings.accumulate > 1 else value

    cost, _ = measure_block(
        scored,
        entry,
        parameters=[],
        keeps_gradients=keeps,
        input_may_last=lasts,
        known=known,
    )
    # The loss and its own gradient, a number each, live while the blocks run back, and so does the
    # sum of the losses of earlier batches.
    numbers = 2 if settings.accumulate == 1 else 3
    blocks.append(Block((cost,), entry.bytes, gradient_bytes=numbers * image.element_size()))
    return blocks, options


def _updating(tensors: Sequence[Tensor], settings: StepSettings) -> Optimizer | None:
    """Return the optimizer that updates a block's parameters in the backward pass, if any does.

    Its state exists already. Fused kernels run on no tensor without values; they make no tensor.
    """
    trained = [p for p in tensors if isinstance(p, nn.Parameter) and p.requires_grad]
    if not settings.optimizer_in_backward or not trained:
        return None
    if settings.fused:
        plain = replace(settings, fused=False, optimizer="sgd", weight_decay=0.0)
        return make_optimizer(trained, plain)
    optimizer = make_optimizer(trained, settings)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
