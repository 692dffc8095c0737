"""Lowers exported programs to a file for ExecuTorch's runtime."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from dse.deploy.pte.planning import plan_specs
from dse.errors import ConfigError, DseError, ExportError

TRAIN = "train"
EVALUATE = "evaluate"
STATISTICS = "statistics"


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """A file's content, with the planned sizes of its programs.

    Attributes:
        content: content of the .pte file.
        arena_bytes: bytes of the arena of each program, by its name.
    """

    content: bytes
    arena_bytes: Mapping[str, int]


def lower(
    training: ExportedProgram, evaluation: ExportedProgram, *, statistics: Mapping[str, Tensor]
) -> Lowered:
    """Lower a training step and an evaluation to one file.

    Inputs and trained parameters are in the arena. In the file, tensors of equal content share
    bytes, so that ExecuTorch's optimizer would change all of them by one update.

    Args:
        training: the step's program.
        evaluation: the evaluation's program.
        statistics: running statistics before the first step; a program without arguments returns
            them.

    Raises:
        ExportError: if ExecuTorch has no kernel for an operator, or can't lower it otherwise.
    """
    exir, passes = imported("executorch.exir"), imported("executorch.exir.passes")
    constants = {STATISTICS: [held.detach().clone() for held in statistics.values()]}
    planning = passes.MemoryPlanningPass(memory_planning_algo=plan_specs)
    try:
        with silenced():
            edge = exir.to_edge(
                {TRAIN: training, EVALUATE: evaluation},
                constant_methods=constants if statistics else None,
            )
            made = edge.to_executorch(exir.ExecutorchBackendConfig(memory_planning_pass=planning))
    except DseError:
        raise
    except Exception as error:  # it raises many kinds
        raise ExportError(f"ExecuTorch can't run this network's step: {reason(error)}") from error
    plans = made.executorch_program.execution_plan
    sizes = {plan.name: sum(plan.non_const_buffer_sizes) for plan in plans}
    return Lowered(
        content=bytes(made.buffer),
        arena_bytes={name: sizes[name] for name in (TRAIN, EVALUATE)},
    )


def imported(module: str) -> Any:
    """Import a module of ExecuTorch.

    Raises:
        ConfigError: if it isn't installed, or doesn't work with this version of PyTorch.
    """
    try:
        with silenced():
            return import_module(module)
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"{module} can't be imported with PyTorch {torch.__version__}: {reason(error)}; "
            "pip install 'dse[executorch]', with the PyTorch that its ExecuTorch was built for"
        ) from error


def reason(error: BaseException) -> str:
    """Return the first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Suppress ExecuTorch's warnings about its own passes and experimental parts."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def planned_bytes(content: bytes) -> int:
    """Return the bytes of a file's arena for the training program.

    Raises:
        ExportError: if the file is damaged.
    """
    serialize = imported("executorch.exir._serialize._program")
    try:
        found = serialize.deserialize_pte_binary(content)
    except Exception as error:
        raise ExportError(f"the file is no ExecuTorch program: {reason(error)}") from error
    program = getattr(found, "program", found)
    sizes = {plan.name: sum(plan.non_const_buffer_sizes) for plan in program.execution_plan}
    if TRAIN not in sizes:
        raise ExportError(f"the file has no program named {TRAIN}")
    return int(sizes[TRAIN])
