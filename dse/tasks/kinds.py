"""The kinds of tasks, by the form of their targets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dse.inputs import InputSpec
from dse.measures import ERRORS
from dse.names import TASKS as SUMMARIES
from dse.registry import Registry
from dse.tasks.metrics import one_hot

Form = Literal["class", "values", "mask"]


@dataclass(frozen=True, kw_only=True)
class TaskKind:
    """A task by name.

    Attributes:
        form: what a sample's target is: a class, (outputs,) values, or a mask of classes.
        target: returns shape and type of a sample's target for a number of outputs and a sample.
        chance: score by a metric that is worth nothing, for a number of outputs.
        separable: turns targets into (n, k) values that a linear model of the features is fitted
            to, where statistics of batch norm are chosen.
    """

    form: Form
    target: Callable[[int, InputSpec], InputSpec]
    chance: Callable[[str, int], float]
    separable: Callable[[Tensor, int], Tensor]


TASKS: Registry[TaskKind] = Registry("task", SUMMARIES)


def _vector(outputs: int, _inputs: InputSpec) -> InputSpec:
    return InputSpec(shape=(outputs,))


def _class_shares(masks: Tensor, classes: int) -> Tensor:
    """Return the share of each mask's pixels that belongs to each class, (n, classes)."""
    flat = masks.flatten(1).long()
    found = [torch.bincount(one[one < classes], minlength=classes) for one in flat]
    shares = torch.stack(found).double()
    return shares / shares.sum(dim=1, keepdim=True).clamp_min(1)


def _chance_of_pixels(metric: str, outputs: int) -> float:
    # Predicting one class everywhere, if all classes are equally frequent.
    return 1 / outputs if metric == "pixel-accuracy" else 1 / outputs**2


TASKS.register(
    "classification",
    TaskKind(
        form="class",
        target=lambda _outputs, _inputs: InputSpec(shape=(), kind="int64"),
        chance=lambda _metric, outputs: 1 / outputs,
        separable=one_hot,
    ),
)
for _name in ("multi-label", "regression"):
    TASKS.register(
        _name,
        TaskKind(
            form="values",
            target=_vector,
            chance=lambda _metric, _outputs: 0.0,
            separable=lambda targets, _outputs: targets,
        ),
    )
TASKS.register(
    "segmentation",
    TaskKind(
        form="mask",
        target=lambda _outputs, inputs: InputSpec(shape=inputs.shape[1:], kind="int64"),
        chance=_chance_of_pixels,
        separable=_class_shares,
    ),
)


def worthless_errors(metric: str, targets: Tensor) -> float | None:
    """Return the error of always predicting the mean of the training targets, (n, columns).

    Returns:
        None for a metric that isn't an error, or if all targets are equal.
    """
    if metric not in ERRORS:
        return None
    apart = targets.double() - targets.double().mean(dim=0)
    found = float(apart.abs().mean()) if metric == "mae" else float(apart.square().mean().sqrt())
    return found or None
