import pytest
import torch
from torch import Tensor, nn

from dse.errors import NetworkError
from dse.networks.forward import execution_order, output_layers
from dse.pruning.groups import find_groups
from support.networks import Residual

IMAGE = torch.zeros(2, 3, 8, 8)


class Backwards(nn.Module):
    """Registers its layers in another order than it runs them, and one it never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.unused = nn.Linear(4, 2)
        self.act = nn.ReLU()
        self.stem = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.head(self.act(self.stem(x)).mean((2, 3))))


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.second = nn.Linear(4, 2)
        self.first = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).mean((2, 3))
        return self.first(x) + self.second(x)


def test_the_order_is_that_of_execution() -> None:
    assert execution_order(Backwards(), IMAGE) == ("stem", "act", "head")


def test_everything_is_left_as_it_was() -> None:
    network = Residual()
    network.norm.eval()
    modes = {name: module.training for name, module in network.named_modules()}
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    execution_order(network, IMAGE)
    output_layers(network, IMAGE)
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_modes_are_restored_when_the_forward_fails() -> None:
    network = Residual()
    with pytest.raises(NetworkError):
        execution_order(network, torch.zeros(1, 5, 8, 8))
    assert all(module.training for module in network.modules())


def test_the_output_layer_is_found_behind_activations() -> None:
    assert output_layers(Backwards(), IMAGE) == ("head",)


def test_a_sum_has_several_output_layers_in_execution_order() -> None:
    assert output_layers(TwoHeads(), IMAGE) == ("first", "second")


def test_frozen_networks_and_meta_networks_have_output_layers_too() -> None:
    assert output_layers(TwoHeads().requires_grad_(False), IMAGE) == ("first", "second")
    assert output_layers(TwoHeads().to("meta"), IMAGE.to("meta")) == ("first", "second")


def test_nested_outputs_are_walked() -> None:
    class Nested(TwoHeads):
        def forward(self, x: Tensor) -> dict[str, object]:
            x = self.stem(x).mean((2, 3))
            return {"logits": self.first(x), "others": [self.second(x)]}

    assert output_layers(Nested(), IMAGE) == ("first", "second")


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(NetworkError, match="no convolution or linear layer"):
        output_layers(nn.Sequential(nn.ReLU()), IMAGE)


class PaddedConv(nn.Conv2d):
    """A convolution that holds its padding as a module, as EfficientNet's ports have it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3)
        self.pad = nn.ZeroPad2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pad(x))


def padded() -> nn.Sequential:
    return nn.Sequential(
        PaddedConv(3, 4),
        nn.ReLU(),
        PaddedConv(4, 6),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
    )


def test_a_layer_that_holds_a_module_has_its_place_in_the_order() -> None:
    assert execution_order(padded(), IMAGE) == ("0.pad", "0", "1", "2.pad", "2", "3", "4", "5")


def test_channel_groups_of_such_layers_are_in_execution_order() -> None:
    assert [group.name for group in find_groups(padded(), IMAGE)] == ["0", "2"]
