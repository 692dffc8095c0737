"""Checkpointing changes memory, nothing else."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from dse.errors import NetworkError, TrainingError
from dse.step.canonical import classification_loss, training_step
from dse.step.checkpointing import block_names, checkpointed, find_blocks, trained_blocks
from dse.step.optimizers import make_optimizer
from dse.step.settings import StepSettings

SGD = StepSettings(optimizer="sgd")


class Blocks(nn.Module):
    """Two blocks, the first with dropout; perhaps one that changes its input in place."""

    def __init__(self, *, in_place: bool = False) -> None:
        super().__init__()
        first = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5)]
        second = [nn.Conv2d(6, 4, 3, stride=2), nn.BatchNorm2d(4, momentum=None), nn.ReLU()]
        self.first = nn.Sequential(*first)
        self.second = nn.Sequential(*([nn.ReLU(inplace=True)] if in_place else []), *second)
        self.head = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(images)).mean(dim=(2, 3)))


def stepped(network: nn.Module, settings: StepSettings) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    images, labels = torch.randn(4, 3, 9, 9), torch.tensor([0, 1, 2, 0])
    optimizer = make_optimizer(network.parameters(), SGD, learning_rate=0.1)
    batches = [(images, labels)] * settings.accumulate
    training_step(network, optimizer, classification_loss, batches, settings=settings)
    return {**network.state_dict(), "random": torch.rand(3)}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_weights_statistics_and_random_numbers_are_those_of_the_plain_step(
    accumulate: int,
) -> None:
    torch.manual_seed(0)
    network = Blocks()
    plain = stepped(copy.deepcopy(network), StepSettings(accumulate=accumulate))
    blocks = StepSettings(accumulate=accumulate, checkpointing="blocks")
    again = stepped(network, blocks)
    for name, tensor in plain.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-6, atol=1e-7, msg=name)
    assert "forward" not in network.first.__dict__


def test_accumulation_over_parts_is_the_step_of_the_whole() -> None:
    """Without batch normalisation, which sees each part alone."""
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    parts = copy.deepcopy(whole)
    images, labels = torch.randn(6, 3, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    losses = []
    for network, batches in (
        (whole, [(images, labels)]),
        (parts, [(images[:3], labels[:3]), (images[3:], labels[3:])]),
    ):
        optimizer = make_optimizer(network.parameters(), SGD, learning_rate=0.1)
        step = StepSettings(accumulate=len(batches))
        losses.append(
            training_step(network, optimizer, classification_loss, batches, settings=step)
        )
    torch.testing.assert_close(losses[0], losses[1])
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_are_kept_where_they_are_not_set_to_none() -> None:
    network = Blocks()
    stepped(network, StepSettings(set_to_none=False))
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_a_step_wants_as_many_batches_as_it_accumulates() -> None:
    network = nn.Linear(2, 2)
    optimizer = make_optimizer(network.parameters(), SGD)
    batch = (torch.ones(2, 2), torch.tensor([0, 1]))
    with pytest.raises(TrainingError, match="1 batches in place of 2"):
        training_step(
            network, optimizer, classification_loss, [batch], settings=StepSettings(accumulate=2)
        )


@pytest.mark.parametrize(
    ("name", "some", "count"),
    [
        ("mobilenet_v2", "features.1", 19),
        ("resnet18", "layer1.0", 8),
        ("efficientnet_b0", "features.1.0", 18),
        ("googlenet", "inception3a", 12),
        ("densenet121", "features.denseblock1", 7),
    ],
)
def test_blocks_of_torchvision_networks(name: str, some: str, count: int) -> None:
    with torch.device("meta"):
        extra = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
        names = block_names(torchvision.models.get_model(name, **extra))
    assert some in names
    assert len(names) == count


def test_what_can_not_be_checkpointed_is_named() -> None:
    with pytest.raises(NetworkError, match="has 0 blocks"), checkpointed(nn.Linear(2, 2)):
        pass
    with pytest.raises(NetworkError, match=r"block 'second' changes its input in place"):
        stepped(Blocks(in_place=True), StepSettings(checkpointing="blocks"))


def test_blocks_without_parameters_are_no_part_of_schemes() -> None:
    pooling = nn.Sequential(nn.Sequential(nn.AdaptiveAvgPool2d(1)))
    network = nn.Sequential(Blocks().first, Blocks().first, pooling, nn.Flatten())
    assert find_blocks(network) == ("0", "1", "2.0")
    assert trained_blocks(network) == ("0", "1")
