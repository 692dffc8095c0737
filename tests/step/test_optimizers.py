"""Optimizers by name."""

import pytest
import torch
from torch import nn

from dse.errors import ConfigError
from dse.names import OPTIMIZERS
from dse.step.optimizers import make_optimizer
from dse.step.settings import StepSettings


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_name_trains_the_trainable_parameters(name: str) -> None:
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    before = layer.weight.detach().clone()
    optimizer = make_optimizer(layer.parameters(), StepSettings(optimizer=name), learning_rate=0.1)
    assert optimizer.param_groups[0]["params"] == [layer.weight]
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert not torch.equal(layer.weight, before)


def test_momentum_is_the_difference_between_the_two_sgds() -> None:
    parameters = [nn.Parameter(torch.zeros(1))]
    for name, momentum in (("sgd", 0), ("sgd-momentum", 0.9)):
        optimizer = make_optimizer(parameters, StepSettings(optimizer=name))
        assert optimizer.defaults["momentum"] == momentum


def test_unknown_names_and_impossible_settings_are_named() -> None:
    parameters = [nn.Parameter(torch.zeros(1))]
    with pytest.raises(ConfigError, match="unknown optimizer 'lion': use sgd"):
        make_optimizer(parameters, StepSettings(optimizer="lion"))
    with pytest.raises(ConfigError, match="nesterov=True needs the optimizer 'sgd-momentum'"):
        make_optimizer(parameters, StepSettings(optimizer="adam", nesterov=True))
