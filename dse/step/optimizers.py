"""Build optimizers by name, with the settings that affect the memory of a step."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from dse import names
from dse.errors import ConfigError
from dse.registry import Registry
from dse.step.settings import StepSettings

MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True)
class OptimizerKind:
    """Registry entry of an optimizer.

    Attributes:
        build: Builds it from the trained parameters, the step's settings and a learning rate.
        usual_rate: Learning rate that is usual for it, as a multiple of Adam's; None if unknown. A
            search that varies the optimizer converts the study's rate by it.
    """

    build: Callable[[list[nn.Parameter], StepSettings, float], torch.optim.Optimizer]
    usual_rate: float | None = None


OPTIMIZERS: Registry[OptimizerKind] = Registry("optimizer", names.OPTIMIZERS)


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    settings: StepSettings,
    *,
    learning_rate: float = 1e-2,
) -> torch.optim.Optimizer:
    """Build the optimizer of a step for the parameters that train.

    Args:
        parameters: All parameters of the network. Frozen ones are skipped.
        settings: Name of the optimizer and how it runs.
        learning_rate: Initial learning rate.

    Raises:
        ConfigError: If the name is unknown, or ``nesterov`` is set for an optimizer that does not
            support it.
    """
    kind = OPTIMIZERS[settings.optimizer]
    if settings.nesterov and settings.optimizer not in names.NESTEROV:
        having = names.either(map(repr, names.NESTEROV))
        raise ConfigError(f"nesterov=True needs the optimizer {having}, not {settings.optimizer!r}")
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return kind.build(trained, settings, learning_rate)


def _sgd(
    parameters: list[nn.Parameter], settings: StepSettings, learning_rate: float, *, momentum: float
) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameters,
        lr=learning_rate,
        momentum=momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov,
        foreach=settings.foreach,
        fused=settings.fused,
    )


def _adam(
    parameters: list[nn.Parameter],
    settings: StepSettings,
    learning_rate: float,
    *,
    kind: type[torch.optim.Adam],
) -> torch.optim.Optimizer:
    arguments: dict[str, Any] = {
        "lr": learning_rate,
        "weight_decay": settings.weight_decay,
        "foreach": settings.foreach,
        "fused": settings.fused,
    }
    return kind(parameters, **arguments)


OPTIMIZERS.register("sgd", OptimizerKind(build=partial(_sgd, momentum=0.0), usual_rate=200.0))
OPTIMIZERS.register(
    "sgd-momentum", OptimizerKind(build=partial(_sgd, momentum=MOMENTUM), usual_rate=20.0)
)
for _name, _kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
    OPTIMIZERS.register(_name, OptimizerKind(build=partial(_adam, kind=_kind), usual_rate=1.0))
