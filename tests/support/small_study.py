"""A small real study: the digits at 12x12 and a network of a few channels."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from dse.config import (
    DataConfig,
    NetworkConfig,
    PretrainConfig,
    ProxyConfig,
    ReferenceConfig,
    SearchConfig,
    SpaceConfig,
    Study,
    TrainingConfig,
)
from dse.data import load_data
from dse.engines.engine import study_plan
from dse.finetune.proxy import Proxy
from dse.finetune.pruner import Pruner
from dse.networks.build import build_network
from dse.networks.examples import example_input
from dse.pruning.groups import find_groups
from dse.step.schemes import apply_scheme
from support.networks import Residual

TRAINING = TrainingConfig(batch_size=16, learning_rate=0.1, threads=1)


def small_network(num_classes: int, width: int = 16) -> nn.Module:
    """A factory such as a study may name."""
    return Residual(width=width, classes=num_classes)


def fresh(scheme: str = "full") -> Residual:
    """The same new network each time, ready to train under a scheme."""
    torch.manual_seed(0)
    network = Residual(width=16)
    apply_scheme(network, torch.zeros(2, 3, 12, 12), scheme)
    return network


def small_study(**tables: Any) -> Study:
    fixed: dict[str, Any] = {
        "name": "small",
        "source_dir": Path(__file__).parents[1],
        "network": NetworkConfig(name="support.small_study:small_network", options={"width": 16}),
        "data": DataConfig(name="digits", labels=("5", "6", "7"), image_size=12),
        "space": SpaceConfig(ratio=(0.0, 0.9)),
        "training": TRAINING,
        "proxy": ProxyConfig(calibrate_batches=4, short_epochs=0.5, full_epochs=2, full_seeds=2),
        "reference": ReferenceConfig(tune=False),
        "search": SearchConfig(budgets=(2**20,)),
    }
    return Study(**{**fixed, **tables})


def pretraining_study(**recipe: Any) -> Study:
    pretrain = PretrainConfig(**{"epochs": 2, "learning_rate": 0.1, "batch_size": 16, **recipe})
    network = NetworkConfig(
        name="support.small_study:small_network",
        options={"width": 16},
        weights="pretrain",
        pretrain=pretrain,
    )
    data = DataConfig(name="digits", labels=("5", "6", "7", "8", "9"), image_size=12)
    return small_study(network=network, data=data)


def small_proxy(study: Study) -> Proxy:
    data = load_data(study.data, seed=study.seed)
    torch.manual_seed(0)
    network = build_network(study.network.name, classes=data.classes, options=study.network.options)
    groups = find_groups(network, example_input(1, study.data.image_size))
    pruner = Pruner(study=study, network=network, data=data, groups=groups)
    return Proxy(pruner=pruner, make_plan=study_plan)
