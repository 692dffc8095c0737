"""Build optimizers by name, with the settings that affect the memory of a step."""

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
    """Build the optimizer of a step for the parameters that train.

    Args:
        parameters: All parameters of the network. Frozen ones are skipped.
        settings: Name of the optimizer and how it runs.
        learning_rate: Initial learning rate.
        momentum: Momentum of ``sgd-momentum``. Other optimizers ignore it.

    Raises:
        ConfigError: If the name is unknown, or ``nesterov`` is set for an optimizer other than
            ``sgd-momentum``.
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
