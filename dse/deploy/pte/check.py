"""Compares a file's training steps in ExecuTorch's runtime with PyTorch's."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dse.deploy.pte.eager import eager_step
from dse.deploy.pte.lowering import planned_bytes
from dse.deploy.pte.runtime import Trainer
from dse.errors import ExportError
from dse.networks.engine import stock_of

STEPS = 2


@dataclass(frozen=True, kw_only=True)
class Check:
    """A file's steps against PyTorch's in float64.

    Attributes:
        losses: loss of each step in the runtime.
        loss: the largest difference of a loss, relative to it.
        gradient: that of a gradient, relative to the largest gradient of the step.
        own_loss: what PyTorch's own float32 differs by.
        own_gradient: likewise.
        arena_bytes: bytes of the training program's arena.
    """

    losses: tuple[float, ...]
    loss: float
    gradient: float
    own_loss: float
    own_gradient: float
    arena_bytes: int

    @property
    def largest(self) -> float:
        """The larger of the two differences."""
        return max(self.loss, self.gradient)


def check(
    content: bytes, network: nn.Module, samples: Tensor, labels: Tensor, *, steps: int = STEPS
) -> Check:
    """Train a file a few steps in ExecuTorch's runtime, beside PyTorch.

    Both begin each step with the same parameters. A small learning rate moves them.

    Args:
        content: content of the file.
        network: the network that it was made from, in its training mode. It is changed. Stock
            PyTorch computes what a lean network's steps are compared with.
        samples: a batch.
        labels: (batch,) int64.
        steps: number of steps.

    Raises:
        ExportError: if the file trains other parameters than the network.
    """
    network = stock_of(network)
    trainer = Trainer(content)
    losses, gaps = [], []
    rate = None
    for _ in range(steps):
        losses.append(trainer.compute(samples, labels))
        own_loss, own, buffers = eager_step(network, samples, labels, masks=trainer.masks)
        loss, expected, _ = eager_step(
            deepcopy(network).double(), in_float64(samples), labels, masks=trainer.masks
        )
        if trainer.gradients.keys() != expected.keys():
            raise ExportError("network.pte trains other parameters than the network")
        scale = max(float(held.abs().max()) for held in expected.values())
        floor = max(abs(loss), 1e-3)
        gaps.append(
            (
                abs(losses[-1] - loss) / floor,
                _gap(trainer.gradients, expected, scale),
                abs(own_loss - loss) / floor,
                _gap(own, expected, scale),
            )
        )
        rate = rate or 1e-3 / max(scale, 1e-3)
        trainer.update(learning_rate=rate)
        _follow(network, trainer.parameters().items(), buffers.items())
    loss_gap, gradient_gap, own_loss_gap, own_gradient_gap = map(max, zip(*gaps, strict=True))
    return Check(
        losses=tuple(losses),
        loss=loss_gap,
        gradient=gradient_gap,
        own_loss=own_loss_gap,
        own_gradient=own_gradient_gap,
        arena_bytes=planned_bytes(content),
    )


def in_float64(samples: Tensor) -> Tensor:
    """Return samples in float64; whole numbers, such as tokens, as they are."""
    return samples.double() if samples.is_floating_point() else samples


def _gap(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], scale: float) -> float:
    """Return the largest difference of any value, relative to a scale; NaN counts as infinite."""
    gaps = [float((given[name] - held).abs().max()) for name, held in expected.items()]
    found = max(gaps) / max(scale, torch.finfo().tiny)
    return found if all(gap == gap for gap in gaps) else float("inf")  # noqa: PLR0124


def _follow(network: nn.Module, *tensors: Iterable[tuple[str, Tensor]]) -> None:
    own = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    with torch.no_grad():
        for name, held in (pair for each in tensors for pair in each):
            own[name].copy_(held)
