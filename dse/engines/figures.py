"""What each block of a lean step holds, and its share of the step's time."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dse.engines.budget import Planner
from dse.engines.network import LeanNetwork, run_by
from dse.engines.plan import LeanPlan, SegmentPlan
from dse.errors import NetworkError
from dse.pruning.groups import ChannelGroup
from dse.pruning.resize import resized
from dse.step.canonical import Loss, classification_loss
from dse.step.plan_figures import BlockFigures, PlanFigures
from dse.step.schemes import apply_scheme
from dse.step.settings import StepSettings


def pruned_plan_figures(
    network: nn.Module,
    groups: Sequence[ChannelGroup],
    kept: Sequence[int],
    *,
    plan: LeanPlan,
    example_input: Tensor,
    settings: StepSettings,
    batch_size: int,
    loss: Loss = classification_loss,
) -> PlanFigures:
    """Find out what each block of a pruned network's step holds and takes.

    Args:
        network: The unpruned network. It is not changed.
        groups: Its channel groups.
        kept: Kept channels of each group.
        plan: The plan, which all widths share.
        example_input: Tensor (any batch, channels, height, width).
        settings: Settings of the step.
        batch_size: Images per step.
        loss: Loss of outputs and targets.
    """
    shell = resized(network, groups, kept)
    meta = torch.empty(2, *example_input.shape[1:], dtype=example_input.dtype, device="meta")
    apply_scheme(shell, meta, settings.scheme)
    lean = run_by(shell, example_input, plan)
    if not isinstance(lean, LeanNetwork):
        raise TypeError(f"{type(lean).__name__} is not lean")
    return plan_figures(lean, example_input, settings=settings, batch_size=batch_size, loss=loss)


def plan_figures(
    network: LeanNetwork,
    example_input: Tensor,
    *,
    settings: StepSettings,
    batch_size: int,
    loss: Loss = classification_loss,
) -> PlanFigures:
    """Find out what each block of a lean network's step holds and takes.

    Args:
        network: The network, with its scheme applied. It is not changed.
        example_input: Tensor (any batch, channels, height, width).
        settings: Settings of the step.
        batch_size: Images per step.
        loss: Loss of outputs and targets.
    """
    plan = network.lean_plan
    images = torch.empty(
        batch_size, *example_input.shape[1:], dtype=example_input.dtype, device="meta"
    )
    named = [
        (f"{program.module}.{segment.title}" if program.module else segment.title, segment)
        for program in plan.programs
        for segment in program.segments
    ]
    try:
        planner = Planner.of(network, images, settings=settings, loss=loss, follow=True)
    except NetworkError:  # parts of it are lean
        return PlanFigures(tuple(_row(*each) for each in named), plan.untraced)
    step = planner.step
    chosen = [len(block.costs) - 1 for block in step.blocks]
    seconds = step.seconds(chosen)
    blocks = tuple(
        _row(name, segment, held_bytes=held, time_share=block.costs[choice].seconds / seconds)
        for (name, segment), block, choice, held in zip(
            named, step.blocks[:-1], chosen, step.held_bytes(chosen), strict=False
        )
    )
    return PlanFigures(blocks, plan.untraced, seconds / step.seconds([0] * len(chosen)))


def _row(
    name: str,
    segment: SegmentPlan,
    *,
    held_bytes: int | None = None,
    time_share: float | None = None,
) -> BlockFigures:
    return BlockFigures(
        name, segment.level, segment.chunks, segment.recognised, held_bytes, time_share
    )
