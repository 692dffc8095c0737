"""Optimizers by name, with the settings that change what a step holds in memory."""

from collections.abc import Iterable

import torch
from torch import nn

from dse.errors import ConfigError

OPTIMIZERS = ("sgd", "sgd-momentum", "adam", "adamw")


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    *,
    name: str = "sgd-momentum",
    learning_rate: float = 1e-2,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    foreach: bool = False,
    fused: bool = False,
) -> torch.optim.Optimizer:
    """Build the optimizer of a study over those parameters that train.

    Args:
        parameters: all parameters; the frozen ones are left out.
        name: one of ``OPTIMIZERS``.
        learning_rate: initial learning rate.
        momentum: of ``sgd-momentum`` alone.
        weight_decay: L2 penalty, decoupled for ``adamw``.
        nesterov: Nesterov's form of ``sgd-momentum``.
        foreach: update all tensors in one call; faster on a GPU, but it holds temporaries of
            every parameter at once.
        fused: update each tensor in one kernel, which holds no temporaries.

    Raises:
        ConfigError: the name is unknown, or ``nesterov`` goes with another optimizer.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if nesterov and name != "sgd-momentum":
        raise ConfigError(f"nesterov=True needs the optimizer 'sgd-momentum', not {name!r}")
    if name in ("sgd", "sgd-momentum"):
        return torch.optim.SGD(
            trained,
            lr=learning_rate,
            momentum=momentum if name == "sgd-momentum" else 0.0,
            weight_decay=weight_decay,
            nesterov=nesterov,
            foreach=foreach,
            fused=fused,
        )
    if name in ("adam", "adamw"):
        kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
        return kind(
            trained, lr=learning_rate, weight_decay=weight_decay, foreach=foreach, fused=fused
        )
    raise ConfigError(f"unknown optimizer {name!r}; use one of {', '.join(OPTIMIZERS)}")
