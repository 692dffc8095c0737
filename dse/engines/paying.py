"""Let blocks run as stock PyTorch where lean training would not save memory.

While a lean block runs, in either direction, its input or its output's gradient lives until the
whole block has run, and it computes values again. That only pays if the block holds less from its
forward to its backward pass.
"""

from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from dse.engines.block_costs import Border, Cost, measure_block
from dse.engines.budget import traced_peak
from dse.engines.likeness import likeness
from dse.engines.meter import Known
from dse.engines.network import LeanNetwork
from dse.engines.op import Modules
from dse.engines.plan import Choice, LeanPlan, ProgramPlan
from dse.engines.program import Stage, Traced, output_lasts, stages
from dse.errors import MemoryModelError
from dse.memory.trace import step_network
from dse.step.canonical import Loss
from dse.step.settings import StepSettings


def plan_that_pays(
    network: LeanNetwork, shape: Sequence[int], *, settings: StepSettings, loss: Loss
) -> LeanPlan:
    """Return a network's plan with the blocks lean for which it pays, and the others stock.

    A block is lean if it then holds less. All are stock if the step would hold more nevertheless.

    Args:
        network: The network at a plan without a budget. It is not changed.
        shape: Shape (batch, channels, height, width) of the images.
        settings: Settings of the step.
        loss: Loss of outputs and labels. A step that can't be traced with it isn't compared.
    """
    shell = step_network(network, (), (), image_shape=(), scheme=None)
    if not isinstance(shell, LeanNetwork):
        raise TypeError(f"{type(shell).__name__} is not lean")
    parts = shell.division().parts
    programs = network.lean_plan.programs
    chosen = tuple(_paying(program, parts[program.module], shell) for program in programs)
    plan = replace(network.lean_plan, programs=chosen)
    with suppress(MemoryModelError):
        own, stock = (
            traced_peak(each, shape, settings=settings, loss=loss)
            for each in (network.with_plan(plan), network.stock)
        )
        if own > stock:
            return _all_stock(plan)
    return plan


def _all_stock(plan: LeanPlan) -> LeanPlan:
    return replace(
        plan,
        programs=tuple(
            _with(program, [False] * len(program.segments)) for program in plan.programs
        ),
    )


def _with(program: ProgramPlan, lean: Sequence[bool]) -> ProgramPlan:
    segments = tuple(
        segment if pays else replace(segment, level="stock")
        for segment, pays in zip(program.segments, lean, strict=True)
    )
    return replace(program, segments=segments)


@dataclass(frozen=True)
class _Held:
    """What one choice of a block holds.

    Attributes:
        cost: What it costs.
        entry_bytes, output_bytes: Bytes of what it reads and returns.
    """

    cost: Cost
    entry_bytes: int
    output_bytes: int

    def bytes(self, *, output_lasts: bool) -> int:
        """Return the bytes held from the forward to the backward pass.

        Args:
            output_lasts: Whether something else holds the output.
        """
        own = self.cost.held_bytes + self.entry_bytes * self.cost.holds_input
        return own + self.output_bytes * (self.cost.holds_output and not output_lasts)


def _paying(program: ProgramPlan, found: Traced, shell: LeanNetwork) -> ProgramPlan:
    """Choose from the last block to the first: whether the next holds its input is then known."""
    inside = shell.stock.get_submodule(program.module)
    lean = []
    lasts = True  # what follows the module is taken to hold its input, as most layers do
    for both in reversed(_measured(program, found, inside)):
        stock, own = both
        pays = own.bytes(output_lasts=lasts) < stock.bytes(output_lasts=lasts)
        lean.append(pays)
        lasts = (own if pays else stock).cost.holds_input
    return _with(program, lean[::-1])


def _measured(program: ProgramPlan, found: Traced, module: nn.Module) -> list[tuple[_Held, _Held]]:
    """Return what each block holds as stock PyTorch and by the plan, for two images."""
    modules = dict(module.named_modules(remove_duplicate=False))
    kinds = [parameter.dtype for parameter in module.parameters()]
    dtype = next((kind for kind in kinds if kind.is_floating_point), torch.float32)
    trains = bool(program.module)  # what comes before a module is taken to train
    known: Known = {}
    seen: dict[Hashable, tuple[_Held, _Held]] = {}
    blocks = []
    for place, (part, planned) in enumerate(zip(found.parts, program.segments, strict=True)):
        own = part.segment.tensors(modules)
        dtype = next((each.dtype for each in own if each.is_floating_point()), dtype)
        if part.ops is None:
            blocks.append((_UNKNOWN, _UNKNOWN))
        else:
            size = part.shapes[0]
            entry = Border(size, torch.empty(size, device="meta").stride(), dtype, trains)
            key = (likeness(part.segment, modules), entry, output_lasts(found, place))
            if key not in seen:
                both = stages(found, place, [Choice("stock"), planned.choice], packs=program.packs)
                first, second = (_held(stage, entry, own, modules, known) for stage in both)
                seen[key] = first, second
            blocks.append(seen[key])
        trains = trains or any(parameter.requires_grad for parameter in own)
    return blocks


_UNKNOWN = _Held(Cost(0, 0, True, False, 0, 0, 0.0), 0, 0)  # noqa: FBT003  # as a record


def _held(
    stage: Stage, entry: Border, parameters: list[Tensor], modules: Modules, known: Known
) -> _Held:
    cost, leaves = measure_block(
        partial(stage, modules=modules),
        entry,
        parameters=parameters,
        keeps_gradients=False,
        input_may_last=False,
        known=known,
    )
    return _Held(cost, entry.bytes, leaves.bytes)
