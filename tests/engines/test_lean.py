"""``dse.lean`` and what it returns."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

import dse
from dse.errors import NetworkError
from support import networks
from support.lean import assert_same, lean_copy, train


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    setting = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 1]]
    return models.MobileNetV2(3, 0.25, inverted_residual_setting=setting, dropout=0.0)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32)


def test_parameters_and_buffers_are_shared_under_their_names(
    network: nn.Module, images: torch.Tensor
) -> None:
    found = dse.lean(network, images)
    assert list(found.state_dict()) == list(network.state_dict())
    assert dict(found.named_parameters()) == dict(network.named_parameters())
    assert [name for name, _ in found.named_modules()] == [n for n, _ in network.named_modules()]
    train(found, images)
    stock = dse.unlean(found)
    assert stock is network
    assert dse.unlean(stock) is network


def test_checkpoints_pass_both_ways(network: nn.Module, images: torch.Tensor) -> None:
    found = dse.lean(copy.deepcopy(network), images)
    again = dse.lean(copy.deepcopy(network), images)
    train(found, images)
    network.load_state_dict(found.state_dict())
    again.load_state_dict(network.state_dict())
    network.eval()
    again.eval()
    assert torch.equal(network(images), again(images))


def test_the_freezing_of_a_scheme(network: nn.Module, images: torch.Tensor) -> None:
    found = dse.lean(network, images, scheme="last")
    trained = [name for name, each in found.named_parameters() if each.requires_grad]
    assert trained == ["classifier.1.weight", "classifier.1.bias"]
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(NetworkError, match="no parameter of MobileNetV2 trains"):
        dse.lean(network, images)


def test_without_gradients_it_is_the_stock_network(
    network: nn.Module, images: torch.Tensor
) -> None:
    found = dse.lean(network, images)
    calls = []
    handle = network.features[3].register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        found(images)
    handle.remove()
    assert calls == [1]


@pytest.mark.parametrize("kind", ["forward", "before", "backward"])
def test_hooks_that_would_not_run_are_refused(
    network: nn.Module, images: torch.Tensor, kind: str
) -> None:
    found = dse.lean(network, images)
    module = network.features[3]
    if kind == "forward":
        module.register_forward_hook(lambda *_: None)
    elif kind == "before":
        module.register_forward_pre_hook(lambda *_: None)
    else:
        module.register_full_backward_hook(lambda *_: None)
    with pytest.raises(NetworkError, match=r"module 'features\.3' has a hook"):
        found(images)


def test_hooks_of_the_lean_network_run(network: nn.Module, images: torch.Tensor) -> None:
    found = dse.lean(network, images)
    shapes: list[Any] = []
    found.register_forward_hook(lambda _module, _inputs, output: shapes.append(output.shape))
    found(images).sum().backward()
    assert shapes == [torch.Size([2, 3])]


def test_hooks_of_parameters_run(network: nn.Module, images: torch.Tensor) -> None:
    found = dse.lean(network, images)
    seen: list[Any] = []
    weight = network.features[3].conv[0][0].weight
    weight.register_hook(lambda gradient: seen.append(gradient.shape))
    found(images).sum().backward()
    assert seen == [weight.shape]


def test_autocast_is_refused(network: nn.Module, images: torch.Tensor) -> None:
    found = dse.lean(network, images)
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(NetworkError, match="autocast"),
    ):
        found(images)


@pytest.mark.parametrize("level", ["lean", "recomputed", "chunked"])
def test_a_second_derivative_is_refused(
    network: nn.Module, images: torch.Tensor, level: Any
) -> None:
    loss = lean_copy(network, images, level, 2)(images).sum()
    with pytest.raises(NetworkError, match="differentiated twice"):
        loss.backward(create_graph=True)


def test_a_graph_can_be_kept(network: nn.Module, images: torch.Tensor) -> None:
    found = dse.lean(network, images)
    loss = found(images).square().sum()
    loss.backward(retain_graph=True)
    once = [parameter.grad.clone() for parameter in network.parameters()]
    loss.backward()
    for parameter, gradient in zip(network.parameters(), once, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * gradient, rtol=0, atol=0)


def test_gradients_accumulate(network: nn.Module, images: torch.Tensor) -> None:
    found = dse.lean(copy.deepcopy(network), images)
    for _ in range(2):
        for each in (network, found):
            each(images).square().mean().backward()
    for one, other in zip(network.parameters(), found.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_the_gradient_of_the_images(network: nn.Module, images: torch.Tensor) -> None:
    found = dse.lean(copy.deepcopy(network), images)
    first, second = images.clone().requires_grad_(), images.clone().requires_grad_()
    network.eval()(first).square().sum().backward()
    found.eval()(second).square().sum().backward()
    assert torch.equal(first.grad, second.grad)


def test_torch_compile_runs_it_as_it_is(network: nn.Module, images: torch.Tensor) -> None:
    found = dse.lean(copy.deepcopy(network), images)
    assert_same(network, found, images)
    compiled = torch.compile(found, backend="eager")
    network(images).square().mean().backward()
    compiled(images).square().mean().backward()
    for one, other in zip(network.parameters(), found.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_a_copy_is_a_network_of_its_own(network: nn.Module, images: torch.Tensor) -> None:
    found = dse.lean(network, images)
    found(images)
    other = copy.deepcopy(found)
    train(other, images)
    assert not torch.equal(next(other.parameters()), next(found.parameters()))
    assert next(dse.unlean(other).parameters()) is next(other.parameters())
    assert_same(network, found, images)
    assert_same(network, pickle.loads(pickle.dumps(found)), images)  # noqa: S301  # its own bytes


def test_a_network_moves_to_another_type(network: nn.Module, images: torch.Tensor) -> None:
    found = dse.lean(copy.deepcopy(network), images)
    assert_same(copy.deepcopy(network).double(), found.double(), images.double())
    assert next(dse.unlean(found).parameters()).dtype == torch.double


class Shared(nn.Module):
    """One layer that runs twice, a shared scale, and a parameter of the network's own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.again = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.full((4, 1, 1), 0.5))
        self.head = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.norm(self.again(self.stem(images))).relu()
        features = self.norm(self.again(features)) * self.scale
        return self.head((features * self.scale).mean((2, 3)))


def test_shared_parameters(images: torch.Tensor) -> None:
    network = Shared()
    found = lean_copy(network, images)
    assert_same(network, found, images, steps=2)
    tied = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.Flatten())
    tied[2].weight = tied[0].weight
    assert_same(tied, lean_copy(tied, images), images)


class DependsOnValues(nn.Module):
    """Control flow that can't be traced, around blocks that can."""

    def __init__(self) -> None:
        super().__init__()
        self.first = networks.Blocks().first
        self.second = networks.Blocks().second
        self.head = nn.Linear(12, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.second(self.first(images))
        if features.sum() > 1e9:
            features = -features
        return self.head(features.mean((2, 3)))


def test_what_can_be_traced_of_a_network_is_lean() -> None:
    network, images = DependsOnValues(), torch.randn(2, 3, 16, 16)
    found = lean_copy(network, images)
    assert found.lean_plan.untraced == ("DependsOnValues",)
    assert "can't be traced" in str(found.lean_plan)
    assert "lean" in str(found.lean_plan)
    assert_same(network, found, images)
    assert "forward" not in vars(network.first)


class ChangesBefore(nn.Module):
    """Reads a value again that an activation has changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.act = nn.ReLU(inplace=True)
        self.inner = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.stem(images)
        inner = self.inner(self.act(features))
        return self.head((features + inner).mean((2, 3)))


def test_what_is_changed_in_place_and_read_again(images: torch.Tensor) -> None:
    network = ChangesBefore()
    assert_same(network, lean_copy(network, images), images)


def test_the_plan_is_a_table(network: nn.Module, images: torch.Tensor) -> None:
    table = str(dse.lean(network, images).lean_plan).splitlines()
    assert table[0].split() == ["block", "level", "chunks", "run", "again"]
    assert any(line.split() == ["features.4.conv", "lean"] for line in table)


def test_arguments_of_the_wrong_type(network: nn.Module, images: torch.Tensor) -> None:
    with pytest.raises(NetworkError, match="is of type int"):
        dse.lean(3, images)  # type: ignore[arg-type]
    with pytest.raises(NetworkError, match="example input"):
        dse.lean(network, [1, 2])  # type: ignore[arg-type]


class Checks(nn.Module):
    """Asserts the rank of its input, as many libraries' layers do."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        torch._assert(images.ndim == 4, f"images of {images.ndim} dimensions")
        return images


def test_assertions_about_shapes_divide_nothing(images: torch.Tensor) -> None:
    inner = [nn.Conv2d(3, 4, 1), Checks(), nn.BatchNorm2d(4), Checks(), nn.ReLU(), Checks()]
    network = nn.Sequential(*inner, nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(2 * 32 * 32, 3))
    found = lean_copy(network, images)
    assert_same(network, found, images)
    assert [each.recognised for each in found.lean_plan.programs[0].segments] == [True, True]


class TakesMask(nn.Module):
    """Takes optional arguments, which decide what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(
        self, images: torch.Tensor, mask: torch.Tensor | None = None, *, doubled: bool = False
    ) -> torch.Tensor:
        features = self.norm(self.stem(images)).relu()
        if mask is not None:
            features = features * mask
        if doubled:
            features = features * 2
        return self.head(features.mean((2, 3)))


def test_optional_arguments_have_their_defaults(images: torch.Tensor) -> None:
    network = TakesMask()
    found = lean_copy(network, images)
    assert found.lean_plan.untraced == ()
    assert_same(network, found, images)
    assert torch.equal(found(images, doubled=True), network(images, doubled=True))
