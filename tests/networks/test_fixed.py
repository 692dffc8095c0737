import pytest
import torch
from torch import nn

from dse.errors import NetworkError
from dse.memory.model import MemoryModel
from dse.networks.copies import copied
from dse.networks.fixed import fixed_line, fixed_parameters
from dse.pruning.groups import find_groups
from dse.pruning.surgery import prune
from dse.step.schemes import apply_scheme


def filtering() -> nn.Sequential:
    """Fixed filters, a normalisation with fixed scales, a convolution and a head."""
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, groups=3, bias=False),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    for index in (0, 1):
        network[index].requires_grad_(requires_grad=False)
    return network


IMAGES = torch.zeros(2, 3, 8, 8)
FIXED = {"0.weight", "1.weight", "1.bias"}


def training(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def test_what_the_factory_froze_stays_frozen_under_every_scheme() -> None:
    network = filtering()
    for scheme in ("last", "full", "bias", "full"):
        apply_scheme(network, IMAGES, scheme)
        assert not training(network) & FIXED
    assert training(network) == {"2.weight", "2.bias", "6.weight", "6.bias"}
    assert not network[1].training
    assert network[2].training


def test_copies_and_pruned_networks_remember() -> None:
    network = filtering()
    apply_scheme(network, IMAGES, "last")
    groups = find_groups(network, IMAGES)
    assert groups
    pruned = prune(network, groups=groups, kept=[g.channels // 2 for g in groups])
    for each in (copied(network), pruned):
        apply_scheme(each, IMAGES, "full")
        assert fixed_parameters(each) == FIXED
        assert not training(each) & FIXED


def test_the_memory_model_counts_them_as_frozen() -> None:
    frozen = MemoryModel.compile(filtering(), IMAGES, groups=())
    free = MemoryModel.compile(filtering().requires_grad_(), IMAGES, groups=())
    assert frozen.peaks([], batch_size=4) < free.peaks([], batch_size=4)


def test_the_line_says_what_is_frozen() -> None:
    assert fixed_line(filtering()) == (
        "3 tensors frozen by the factory stay frozen: 0.weight, 1.weight, 1.bias; "
        "at most 4 of 7 can train"
    )
    assert fixed_line(nn.Linear(2, 2)) is None


def test_a_scheme_that_would_train_nothing_is_refused() -> None:
    network = filtering()
    network[6].requires_grad_(requires_grad=False)
    with pytest.raises(NetworkError, match=r"'last' trains no .*froze 6\.bias, 6\.weight"):
        apply_scheme(network, IMAGES, "last")
