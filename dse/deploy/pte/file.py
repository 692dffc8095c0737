"""A bundle's `network.pte`: a training step for ExecuTorch, checked in its runtime."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dse.config import Study
from dse.deploy.pte.eager import eager_step
from dse.deploy.pte.lowering import Lowered, lower, planned_bytes, reason, silenced
from dse.deploy.pte.programs import evaluation_program, training_program
from dse.deploy.pte.runtime import Trainer
from dse.deploy.recipe import Recipe
from dse.errors import ConfigError, DseError, ExportError
from dse.units import format_size

PTE_FILE = "network.pte"
TOLERANCE = 1e-4
"""Of a loss, and of a gradient relative to the largest of all, against PyTorch."""

CHECKED_STEPS = 2
_MOMENTUM = {"sgd": 0.0, "sgd-momentum": 0.9}


@dataclass(frozen=True, kw_only=True)
class Check:
    """A file's steps in ExecuTorch's runtime against PyTorch's.

    Attributes:
        losses: loss of each step in the runtime.
        loss_difference: the largest difference of a loss from PyTorch's, relative to it.
        gradient_difference: that of a gradient, relative to the largest gradient of the step.
        arena_bytes: bytes of the training program's arena.
    """

    losses: tuple[float, ...]
    loss_difference: float
    gradient_difference: float
    arena_bytes: int

    @property
    def passed(self) -> bool:
        """Whether every loss and gradient is within the tolerance."""
        return max(self.loss_difference, self.gradient_difference) <= TOLERANCE


def check_study(study: Study) -> None:
    """Check that ExecuTorch can train as a study does.

    Raises:
        ConfigError: if a setting of the study has no counterpart in ExecuTorch.
    """
    training, task = study.training, study.task
    own = task.kind != "classification" or task.loss_name != "cross-entropy"
    if own or task.label_smoothing or task.class_weights:
        raise ConfigError(
            "--runtime executorch trains classifiers by the plain cross-entropy alone, and the "
            f'study\'s task is "{task.kind}" by "{task.loss_name}": export with --runtime pytorch'
        )
    if training.optimizer not in _MOMENTUM:
        raise ConfigError(
            f"--runtime executorch can't train with {training.optimizer!r}: ExecuTorch's runtime "
            f"has SGD alone; use {' or '.join(_MOMENTUM)}"
        )
    for name, value, plain in (
        ("accumulate", training.accumulate, 1),
        ("precision", training.precision, "float32"),
        ("checkpointing", training.checkpointing, "none"),
    ):
        if value != plain:
            raise ConfigError(
                f"--runtime executorch has no steps with {name} = {value!r}: export a candidate "
                f"with {plain!r}"
            )


def check_trace(network: nn.Module, samples: Tensor) -> None:
    """Check that a network's training step can be traced, which takes seconds.

    Args:
        network: a network of the same shapes. It is not changed.
        samples: some samples.

    Raises:
        ExportError: if the network's training step can't be traced.
    """
    own = deepcopy(network).train()
    with _export_errors():
        training_program(own, samples, torch.zeros(len(samples), dtype=torch.long))


@contextmanager
def _export_errors() -> Iterator[None]:
    """Turn whatever torch.export raises into an ExportError of one line."""
    try:
        with silenced():
            yield
    except DseError:
        raise
    except Exception as error:
        raise ExportError(f"{PTE_FILE} can't be exported: {reason(error)}") from error


def lower_network(network: nn.Module, samples: Tensor) -> Lowered:
    """Lower a network's training step, and its evaluation of one sample.

    Args:
        network: the network on the CPU in its training mode, with its scheme applied.
        samples: a batch of the size that the step will have.

    Raises:
        ExportError: if ExecuTorch can't run it.
    """
    labels = torch.zeros(len(samples), dtype=torch.long)
    with _export_errors():
        training, statistics = training_program(network, samples, labels)
        trained = [name for name, p in network.named_parameters() if p.requires_grad]
        evaluation = evaluation_program(network, samples[:1], [*trained, *statistics])
    return lower(training, evaluation, statistics=statistics)


def check(content: bytes, network: nn.Module, samples: Tensor, labels: Tensor) -> Check:
    """Train a file a few steps in ExecuTorch's runtime, beside PyTorch.

    Both begin each step with the same parameters. A small learning rate moves them.

    Args:
        content: content of the file.
        network: the network that it was made from, in its training mode. It is changed.
        samples: a batch.
        labels: (batch,) int64.
    """
    trainer = Trainer(content)
    losses, loss_gap, gradient_gap = [], 0.0, 0.0
    rate = None
    for _ in range(CHECKED_STEPS):
        losses.append(trainer.compute(samples, labels))
        expected, gradients, buffers = eager_step(network, samples, labels, masks=trainer.masks)
        if trainer.gradients.keys() != gradients.keys():
            raise ExportError(f"{PTE_FILE} trains other parameters than the network")
        scale = max(float(held.abs().max()) for held in gradients.values())
        gaps = [
            float((trainer.gradients[name] - held).abs().max()) for name, held in gradients.items()
        ]
        gradient_gap = max(gradient_gap, max(gaps) / max(scale, torch.finfo().tiny))
        loss_gap = max(loss_gap, abs(losses[-1] - expected) / max(abs(expected), 1e-3))
        rate = rate or 1e-3 / max(scale, 1e-3)
        trainer.update(learning_rate=rate)
        _follow(network, trainer.parameters().items(), buffers.items())
    return Check(
        losses=tuple(losses),
        loss_difference=loss_gap,
        gradient_difference=gradient_gap,
        arena_bytes=planned_bytes(content),
    )


def _follow(network: nn.Module, *tensors: Iterable[tuple[str, Tensor]]) -> None:
    own = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    with torch.no_grad():
        for name, held in (pair for each in tensors for pair in each):
            own[name].copy_(held)


def training_network(network: nn.Module, recipe: Recipe) -> nn.Module:
    """Put a network into the mode in which a recipe trains it: what trains, and what evaluates."""
    network.train()
    for name, module in network.named_modules():
        if name in recipe.evaluating:
            module.training = False
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in recipe.trained)
    return network


def batch_of(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return a batch of noise of a recipe's size, with labels."""
    samples = recipe.input_spec.example(recipe.batch_size)
    if samples.is_floating_point():
        samples.normal_(generator=torch.Generator().manual_seed(0))
    return samples, torch.arange(recipe.batch_size) % recipe.classes


def write_pte(network: nn.Module, recipe: Recipe, path: Path) -> str:
    """Write a network's training step for ExecuTorch, and check it in its runtime.

    Args:
        network: the network on the CPU. It is not changed.
        recipe: its recipe.
        path: the file to write.

    Returns:
        A line about the file.

    Raises:
        ExportError: if it can't be exported, or ExecuTorch computes something else.
    """
    own = training_network(deepcopy(network), recipe)
    samples, labels = batch_of(recipe)
    lowered = lower_network(own, samples)
    found = check(lowered.content, own, samples, labels)
    if not found.passed:
        raise ExportError(
            f"{path.name}: ExecuTorch's loss differs from PyTorch's by "
            f"{found.loss_difference:.2g}, its gradients by "
            f"{found.gradient_difference:.2g} of the largest, more than {TOLERANCE:g}"
        )
    path.write_bytes(lowered.content)
    return (
        f"{path.name}: ExecuTorch's runtime gives PyTorch's loss within "
        f"{found.loss_difference:.1g} and gradients within {found.gradient_difference:.1g} of the "
        f"largest; its arena for batch {recipe.batch_size} is {format_size(found.arena_bytes)}"
    )
