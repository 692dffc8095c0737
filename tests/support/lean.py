"""Compare lean networks with stock ones."""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from dse.engines.build import Division
from dse.engines.choices import choices
from dse.engines.lean import lean
from dse.engines.network import LeanNetwork
from dse.engines.plan import Choice, LeanPlan, Level, SegmentPlan
from dse.engines.program import Part
from dse.step.canonical import classification_loss


def uniform_plan(
    found: Division, plan: LeanPlan, level: Level, chunks: int = 1, rerun: int = 0
) -> LeanPlan:
    """Return a plan in which every segment that can has one level.

    Args:
        found: The network's segments.
        plan: What the other segments do.
        level: The level.
        chunks: Number of chunks or slices.
        rerun: How many layers run again.
    """

    def changed(segment: SegmentPlan, part: Part) -> SegmentPlan:
        able = part.span is not None if level == "chunked" else Choice(level) in choices(part)
        if not able:
            return segment
        return replace(segment, level=level, chunks=chunks, rerun=part.order[:rerun])

    programs = tuple(
        replace(
            program,
            segments=tuple(
                changed(segment, part)
                for segment, part in zip(
                    program.segments, found.parts[program.module].parts, strict=True
                )
            ),
        )
        for program in plan.programs
    )
    return replace(plan, programs=programs)


def at_level(network: LeanNetwork, level: Level, chunks: int = 1, rerun: int = 0) -> LeanNetwork:
    plan = uniform_plan(network.division(), network.lean_plan, level, chunks, rerun)
    return network.with_plan(plan)


def lean_copy(
    network: nn.Module,
    example_input: torch.Tensor,
    level: Level = "lean",
    chunks: int = 1,
    rerun: int = 0,
) -> LeanNetwork:
    """Return a lean copy of a network at one level."""
    return at_level(lean(copy.deepcopy(network), example_input), level, chunks, rerun)


def levels_of(network: LeanNetwork) -> list[Level]:
    return [each.level for program in network.lean_plan.programs for each in program.segments]


def train(
    network: nn.Module,
    images: torch.Tensor,
    *,
    steps: int = 1,
    loss: Callable[[object, torch.Tensor], torch.Tensor] = classification_loss,
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Train a few steps from one random state: return the losses and the last gradients."""
    torch.manual_seed(0)
    labels = torch.arange(len(images)) % 3
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.05, momentum=0.9)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(network(images), labels)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    gradients = {
        name: parameter.grad
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }
    return losses, gradients


def assert_same(
    stock: nn.Module,
    network: nn.Module,
    images: torch.Tensor,
    *,
    tolerance: float = 0.0,
    steps: int = 1,
) -> None:
    """Train a copy of each: losses, gradients, parameters and buffers must agree.

    A tolerance is relative to the largest entry of all gradients, or of each tensor.
    """
    stock, network = copy.deepcopy(stock), copy.deepcopy(network)
    losses, gradients = train(stock, images, steps=steps)
    others, found = train(network, images, steps=steps)
    assert gradients.keys() == found.keys()
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    for name, gradient in gradients.items():
        away = (gradient - found[name]).abs().max().item()
        assert away <= tolerance * largest, f"{name}: {away}"
        if not tolerance:
            assert gradient.stride() == found[name].stride() or gradient.numel() == 1, name
    for value, other in zip(losses, others, strict=True):
        assert abs(value - other) <= tolerance * max(1.0, abs(value))
    state = network.state_dict()
    assert list(state) == list(stock.state_dict())
    for name, tensor in stock.state_dict().items():
        away = (tensor - state[name]).abs().max().item() if tensor.numel() else 0
        largest = max(1.0, tensor.abs().max().item()) if tensor.numel() else 1.0
        assert away <= tolerance * largest, name
