"""Which parameters train under each scheme, and in which mode each module runs."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from dse import names
from dse.errors import DseError, NetworkError
from dse.memory.model import MemoryModel
from dse.networks.fixed import fixed_parameters
from dse.step.schemes import SCHEMES, SchemeKind, apply_scheme, training_mode
from support.networks import Residual

IMAGE = torch.zeros(2, 3, 12, 12)
HEAD = {"head.weight", "head.bias"}
NORM = {"stem.1.weight", "stem.1.bias", "norm.weight", "norm.bias"}
BIAS = {"stem.1.bias", "norm.bias", "first.bias", "second.bias"}
FROM_FIRST = {n for n, _ in Residual().named_parameters() if not n.startswith("stem")}


def trained(network: nn.Module) -> set[str]:
    return {name for name, p in network.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("full", {name for name, _ in Residual().named_parameters()}),
        ("last", HEAD),
        ("norm", HEAD | NORM),
        ("bias", HEAD | BIAS),
        ("from:first", FROM_FIRST),
        ("from:norm", FROM_FIRST - {"first.weight", "first.bias"}),
        ("from:stem", {name for name, _ in Residual().named_parameters()}),
        ("from:stem.1", {n for n, _ in Residual().named_parameters()} - {"stem.0.weight"}),
        ("from:head", HEAD),
        ("only:second", HEAD | {"second.weight", "second.bias"}),
        ("only:stem,norm", HEAD | NORM | {"stem.0.weight"}),
    ],
)
def test_schemes_train_what_they_say(scheme: str, expected: set[str]) -> None:
    network = Residual()
    apply_scheme(network, IMAGE, scheme)
    assert trained(network) == expected


def test_frozen_normalisation_evaluates_and_trained_normalisation_trains() -> None:
    network = Residual()
    apply_scheme(network, IMAGE, "from:first")
    network.eval()
    training_mode(network, IMAGE)
    assert not network.stem[1].training
    assert network.norm.training
    assert not network.stem.training
    apply_scheme(network, IMAGE, "bias")
    assert network.stem[1].training


def test_normalisation_without_parameters_trains_with_the_whole_network_alone() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(400, 2)
    )
    apply_scheme(network, IMAGE, "full")
    assert network[1].training
    apply_scheme(network, IMAGE, "last")
    assert not network[1].training


def test_a_containers_own_parameter_executes_with_its_first_module() -> None:
    network = torchvision.models.convnext_tiny(num_classes=3)
    apply_scheme(network, torch.zeros(2, 3, 32, 32), "from:features.3")
    assert not network.features[1][0].layer_scale.requires_grad
    assert network.features[3][0].layer_scale.requires_grad


def test_a_scheme_replaces_the_one_before() -> None:
    network = Residual()
    for scheme in ("last", "full", "norm"):
        apply_scheme(network, IMAGE, scheme)
    assert trained(network) == HEAD | NORM


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("most", "unknown scheme 'most': use full, last, norm, bias, lite-residual, from:"),
        ("from:", "unknown scheme 'from:': use full,"),
        ("last:head", "unknown scheme 'last:head': use full,"),
        ("from:nowhere", "'from:nowhere' names no module of Residual"),
    ],
)
def test_unknown_schemes_are_named(scheme: str, message: str) -> None:
    with pytest.raises(DseError, match=message):
        apply_scheme(Residual(), IMAGE, scheme)


def test_an_unknown_module_to_train_alone_is_named() -> None:
    with pytest.raises(NetworkError, match="'only:first,third': Residual has no module 'third'"):
        apply_scheme(Residual(), IMAGE, "only:first,third")


def test_the_memory_of_sparse_updates_follows_from_the_trace() -> None:
    network = torchvision.models.mobilenet_v2(num_classes=3)
    peaks = {
        scheme: int(
            MemoryModel.compile(network, torch.zeros(2, 3, 64, 64), scheme=scheme, groups=()).peaks(
                np.zeros(0), batch_size=8
            )
        )
        for scheme in ("last", "only:features.18", "only:features.3", "full")
    }
    ordered = ["last", "only:features.18", "only:features.3", "full"]
    assert sorted(peaks, key=peaks.__getitem__) == ordered


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_trains_known_parameters_and_leaves_what_the_factory_froze(
    scheme: str,
) -> None:
    network = torchvision.models.resnet18(num_classes=3)
    network.avgpool = nn.Sequential(network.avgpool, nn.Flatten(), nn.Linear(512, 512))
    network.bn1.bias.requires_grad = False
    fixed_parameters(network)
    example = torch.zeros(2, 3, 32, 32)
    modules = scheme.replace("MODULE", "layer4", 1).replace("MODULE", "layer3")
    modules = modules.replace("RANK", "4")
    apply_scheme(network, example, modules)
    first = trained(network)
    assert "bn1.bias" not in first
    assert {"fc.weight", "fc.bias"} <= first
    assert names.scheme_kind(modules) == scheme
    apply_scheme(network, example, modules)  # what was added is not added again
    assert trained(network) == first


def test_a_tied_parameter_trains_under_each_of_its_names() -> None:
    convolutions = [nn.Conv2d(*channels, 3, padding=1) for channels in ((3, 4), (4, 4), (4, 4))]
    convolutions[2].weight = convolutions[1].weight
    network = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(4 * 12 * 12, 3))
    for scheme in ("only:2", "from:2"):
        apply_scheme(network, IMAGE, scheme)
        assert trained(network) == {"1.weight", "2.bias", "4.weight", "4.bias"}


def test_a_scheme_that_names_an_unknown_parameter_is_refused() -> None:
    SCHEMES.register("wrong", SchemeKind(trained=lambda *_: ["head.scale"]), summary="a mistake")
    try:
        with pytest.raises(
            NetworkError, match=r"scheme 'wrong': Residual has no parameter head\.scale"
        ):
            apply_scheme(Residual(), IMAGE, "wrong")
    finally:
        SCHEMES.unregister("wrong")


def test_joined_schemes_train_what_any_of_them_trains() -> None:
    network = torchvision.models.resnet18(num_classes=3)
    example = torch.zeros(2, 3, 32, 32)
    apply_scheme(network, example, "bias-from:layer3+only:layer2.0.conv1")
    names_trained = trained(network)
    assert "layer2.0.conv1.weight" in names_trained
    assert {"layer3.0.bn1.bias", "layer4.1.bn2.bias", "fc.weight"} <= names_trained
    assert not {"layer2.0.bn1.bias", "layer3.0.bn1.weight", "layer3.0.conv1.weight"} & names_trained
    with pytest.raises(NetworkError, match="scheme 'bias-from:layer9' names no module"):
        apply_scheme(network, example, "last+bias-from:layer9")
