"""What runs before all that trains, and in which mode."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.memory.model import MemoryModel
from dse.step.frozen_trunk import frozen_trunk
from dse.step.schemes import apply_scheme

IMAGE = torch.zeros(2, 3, 8, 8)


class Noisy(nn.Module):
    """Dropout before, within and after a middle layer: as modules, and in `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.early = nn.Dropout(0.5)
        self.middle = nn.Conv2d(8, 8, 1)
        self.late = nn.Dropout(0.5)
        self.shared = nn.Dropout(0.5)
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.shared(self.early(self.stem(images)))
        features = self.shared(self.late(self.middle(features))).mean(dim=(2, 3))
        return self.head(functional.dropout(features, 0.5, training=self.training))


def modes(scheme: str) -> dict[str, bool]:
    network = Noisy()
    apply_scheme(network, IMAGE, scheme)
    return {name or "network": module.training for name, module in network.named_modules()}


@pytest.mark.parametrize(
    ("scheme", "evaluating"),
    [
        ("full", set()),
        ("from:stem", set()),
        ("from:middle", {"stem", "early"}),
        ("only:middle", {"stem", "early"}),
        ("last", {"stem", "early", "middle", "late", "shared", "network"}),
    ],
)
def test_what_runs_before_all_that_trains_evaluates(scheme: str, evaluating: set[str]) -> None:
    assert {name for name, training in modes(scheme).items() if not training} == evaluating


def test_under_last_two_passes_in_training_give_the_same() -> None:
    torch.manual_seed(0)
    network = Noisy()
    images = torch.randn(4, 3, 8, 8)
    apply_scheme(network, IMAGE, "full")
    assert not torch.equal(network(images), network(images))
    apply_scheme(network, IMAGE, "last")
    assert torch.equal(network(images), network(images))


def test_stochastic_depth_of_a_frozen_block_is_off_and_of_a_trained_one_on() -> None:
    from torchvision.models import efficientnet_b0  # noqa: PLC0415  # slow to import

    network = efficientnet_b0(num_classes=3)
    apply_scheme(network, torch.zeros(2, 3, 32, 32), "from:features.6")
    assert not network.features[3][1].stochastic_depth.training
    assert not network.features[3][1].training
    assert network.features[6][1].stochastic_depth.training


def test_a_parameter_of_a_container_begins_with_the_container() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.5))
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, images: Tensor) -> Tensor:
            return self.inner(images) * self.scale

    network = nn.Sequential(nn.Dropout(0.5), Scaled(), nn.Flatten(), nn.Linear(256, 2))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name == "1.scale")
    assert frozen_trunk(network, IMAGE) == (network[0],)


def test_a_module_that_is_never_called_counts_with_the_one_around_it() -> None:
    class Lent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(192, 2)

        def forward(self, images: Tensor) -> Tensor:
            return functional.linear(images.flatten(1), self.layer.weight, self.layer.bias)

    network = nn.Sequential(nn.Dropout(0.5), Lent())
    assert frozen_trunk(network, IMAGE) == (network[0],)


def test_where_nothing_trains_there_is_no_trunk() -> None:
    assert frozen_trunk(Noisy().requires_grad_(requires_grad=False), IMAGE) == ()


def test_memory_is_predicted_for_the_mode_that_a_step_runs_in() -> None:
    class Wide(nn.Module):
        def __init__(self, rate: float) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 1)
            self.noise = nn.Dropout(rate)
            self.head = nn.Linear(8, 2)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.noise(self.stem(images)).mean(dim=(2, 3)))

    image = torch.zeros(2, 3, 16, 16)
    peaks = {
        (rate, scheme): int(
            MemoryModel.compile(Wide(rate), image, scheme=scheme, groups=()).peaks((), batch_size=8)
        )
        for rate in (0.0, 0.5)
        for scheme in ("last", "full")
    }
    assert peaks[0.5, "last"] == peaks[0.0, "last"]
    assert peaks[0.5, "full"] > peaks[0.0, "full"]
