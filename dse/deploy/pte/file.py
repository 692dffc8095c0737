"""A bundle's `network.pte`: a training step for ExecuTorch, checked in its runtime."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from dse.config import Study
from dse.deploy.pte.check import check, in_float64
from dse.deploy.pte.lowering import TRAIN, Lowered, lower, reason, silenced
from dse.deploy.pte.programs import evaluation_program, training_program
from dse.deploy.recipe import Recipe
from dse.engines.network import LeanNetwork, run_by
from dse.engines.plan import LeanPlan
from dse.errors import ConfigError, DseError, ExportError
from dse.networks.engine import stock_of
from dse.units import format_size

PTE_FILE = "network.pte"
TOLERANCE = 1e-4
"""Of a loss, and of a gradient relative to the largest of all, against PyTorch in float64."""

EXACT_TOLERANCE = 1e-6
"""The same of a program in float64."""

CLEAR = 0.05
"""Larger differences say nothing, even where PyTorch's own float32 differs as much."""

ROUNDING = 100
"""How much more than PyTorch's float32 ExecuTorch's may differ from float64.

A step whose batch norm has few values per channel amplifies rounding: in MobileNetV2, untrained, at
96x96 with batch 8, PyTorch's own float32 gradients are off by 0.3 % of the largest.
"""

_MOMENTUM = {"sgd": 0.0, "sgd-momentum": 0.9}


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


def check_trace(network: nn.Module, samples: Tensor, plan: LeanPlan | None = None) -> None:
    """Check that a network's training step can be traced, which takes seconds.

    Args:
        network: a network of the same shapes. It is not changed.
        samples: some samples.
        plan: the plan of its lean step; None for the plain step.

    Raises:
        ExportError: if the network's training step can't be traced.
    """
    own = run_by(deepcopy(network).train(), samples, plan)
    with export_errors():
        training_program(own, samples, torch.zeros(len(samples), dtype=torch.long))


@contextmanager
def export_errors() -> Iterator[None]:
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
    with export_errors():
        training, statistics = training_program(network, samples, labels)
        trained = [name for name, p in network.named_parameters() if p.requires_grad]
        evaluation = evaluation_program(network, samples[:1], [*trained, *statistics])
    return lower(training, evaluation, statistics=statistics)


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


def write_pte(
    network: nn.Module, recipe: Recipe, path: Path, *, plan: LeanPlan | None = None
) -> str:
    """Write a network's training step for ExecuTorch, and check it in its runtime.

    Args:
        network: the network on the CPU. It is not changed.
        recipe: its recipe.
        path: the file to write.
        plan: the plan of its lean step; None for the plain step.

    Returns:
        A line about the file.

    Raises:
        ExportError: if it can't be exported, or ExecuTorch computes something else.
    """
    samples, labels = batch_of(recipe)
    own = run_by(training_network(deepcopy(network), recipe), samples, plan)
    lowered = lower_network(own, samples)
    line = checked(lowered, own, samples, labels)
    path.write_bytes(lowered.content)
    return (
        f"{path.name}: {line}; {'its' if plan is None else 'lean, its'} arena for batch "
        f"{recipe.batch_size} is {format_size(lowered.arena_bytes[TRAIN])}"
    )


def checked(lowered: Lowered, network: nn.Module, samples: Tensor, labels: Tensor) -> str:
    """Check a file's steps against PyTorch's, and return how far they agree.

    Where float32 rounds too much to tell, ExecuTorch must differ from float64 little more than
    PyTorch's own float32 does; if not, the same program is made and run in float64 as well.

    Args:
        lowered: the file.
        network: the network that it was made from, in its training mode. It is not changed.
        samples: a batch.
        labels: (batch,) int64.

    Raises:
        ExportError: if ExecuTorch computes something else.
    """
    found = check(lowered.content, deepcopy(stock_of(network)), samples, labels)
    if found.largest <= TOLERANCE:
        return (
            f"ExecuTorch's runtime gives PyTorch's loss within {found.loss:.1g} and gradients "
            f"within {found.gradient:.1g} of the largest"
        )
    own = max(found.own_loss, found.own_gradient)
    if found.largest <= min(2 * own, CLEAR):
        return (
            f"ExecuTorch's runtime differs from PyTorch in float64 by {found.loss:.1g} in the loss "
            f"and by {found.gradient:.1g} of the largest gradient, PyTorch's own float32 by "
            f"{found.own_loss:.1g} and {found.own_gradient:.1g}"
        )
    rounding = (
        f"ExecuTorch's loss differs from PyTorch's in float64 by {found.loss:.2g} and its "
        f"gradients by {found.gradient:.2g} of the largest"
    )
    if found.largest > ROUNDING * own:
        raise ExportError(
            f"{PTE_FILE}: {rounding}, more than {TOLERANCE:g}; PyTorch's own float32 differs by "
            f"{found.own_loss:.2g} and {found.own_gradient:.2g}"
        )
    wide = in_float64(samples)
    plan = network.lean_plan if isinstance(network, LeanNetwork) else None
    exact = run_by(deepcopy(stock_of(network)).double(), wide, plan)
    again = check(lower_network(exact, wide).content, exact, wide, labels, steps=1)
    if again.largest > EXACT_TOLERANCE:
        raise ExportError(
            f"{PTE_FILE}: {rounding}, and in float64 still by {again.loss:.2g} and "
            f"{again.gradient:.2g}"
        )
    return (
        f"in float64, ExecuTorch's runtime gives PyTorch's loss and gradients within "
        f"{again.largest:.1g}; in float32, rounding moves its gradients by {found.gradient:.1g} of "
        f"the largest, and PyTorch's own by {found.own_gradient:.1g}"
    )
