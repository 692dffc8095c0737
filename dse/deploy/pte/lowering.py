"""Lowers exported programs to a file for ExecuTorch's runtime."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.export import ExportedProgram

from dse.deploy.pte.planning import plan_specs
from dse.errors import DseError, ExportError

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

    Samples and labels are not in the arena: the runtime reads them where the application has them.

    Args:
        training: the step's program.
        evaluation: the evaluation's program.
        statistics: running statistics before the first step; a program without arguments returns
            them.

    Raises:
        ExportError: if ExecuTorch has no kernel for an operator, or can't lower it otherwise.
    """
    from executorch.exir import (  # noqa: PLC0415  # an extra
        ExecutorchBackendConfig,
        to_edge,
    )
    from executorch.exir.passes import MemoryPlanningPass  # noqa: PLC0415

    constants = {STATISTICS: [held.detach().clone() for held in statistics.values()]}
    planning = MemoryPlanningPass(memory_planning_algo=plan_specs, alloc_graph_input=False)
    try:
        with silenced():
            edge = to_edge(
                {TRAIN: training, EVALUATE: evaluation},
                constant_methods=constants if statistics else None,
            )
            made = edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=planning))
    except DseError:
        raise
    except Exception as error:  # it raises many kinds
        raise ExportError(f"ExecuTorch can't run this network's step: {reason(error)}") from error
    sizes = {plan.name: sum(plan.non_const_buffer_sizes) for plan in _plans(made)}
    return Lowered(
        content=bytes(made.buffer),
        arena_bytes={name: sizes[name] for name in (TRAIN, EVALUATE)},
    )


def _plans(made: object) -> list[object]:
    return list(made.executorch_program.execution_plan)  # type: ignore[attr-defined]


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
