"""Optimizers by name, with the settings that change what a step holds in memory."""

from collections.abc import Iterable

import torch
from torch import nn

from dse.errors import ConfigError
from dse.names import OPTIMIZERS, use
from dse.step.settings import StepSettings


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    settings: StepSettings,
    *,
    learning_rate: float = 1e-2,
    momentum: float = 0.9,
) -> torch.optim.Optimizer:
    """Build the optimizer of a step over those parameters that train.

    Args:
        parameters: all parameters; the frozen ones are left out.
        settings: which optimizer, and how it runs.
        learning_rate: initial learning rate.
        momentum: of ``sgd-momentum`` alone.

    Raises:
        ConfigError: the name is unknown, or ``nesterov`` goes with another optimizer.
    """
    name = settings.optimizer
    if name not in OPTIMIZERS:
        raise ConfigError(f"unknown optimizer {name!r}: {use(OPTIMIZERS, given=name)}")
    if settings.nesterov and name != "sgd-momentum":
        raise ConfigError(f"nesterov=True needs the optimizer 'sgd-momentum', not {name!r}")
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if name in ("adam", "adamw"):
        kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
        return kind(
            trained,
            lr=learning_rate,
            weight_decay=settings.weight_decay,
            foreach=settings.foreach,
            fused=settings.fused,
        )
    return torch.optim.SGD(
        trained,
        lr=learning_rate,
        momentum=momentum if name == "sgd-momentum" else 0.0,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov,
        foreach=settings.foreach,
        fused=settings.fused,
    )
