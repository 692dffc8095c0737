import copy

import pytest
import torch
from torch import nn

import dse
from dse.config.training import TrainingConfig
from dse.errors import ConfigError, TrainingError
from dse.memory.measure import measure_peak
from dse.memory.model import MemoryModel
from dse.step.canonical import classification_loss, training_step
from dse.step.optimizers import make_optimizer
from dse.step.settings import StepSettings
from support import networks

IMAGES, LABELS = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])


class Tied(nn.Module):
    """One weight is used twice, so its gradient comes in two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.first, self.second = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.second.weight = self.first.weight
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(self.stem(x)).relu()).mean((2, 3)))


def trained(network: nn.Module, settings: StepSettings) -> dict[str, torch.Tensor]:
    optimizer = make_optimizer(network.parameters(), settings, learning_rate=0.05)
    for number in range(3):
        optimizer.param_groups[0]["lr"] = 0.05 / (number + 1)
        training_step(
            network, optimizer, classification_loss, [(IMAGES, LABELS)], settings=settings
        )
        assert all(parameter.grad is None for parameter in network.parameters())
    return network.state_dict()


@pytest.mark.parametrize("kind", [networks.Blocks, Tied])
@pytest.mark.parametrize("engine", ["stock", "lean"])
@pytest.mark.parametrize(
    "changes",
    [
        {"weight_decay": 0.1},
        {"optimizer": "adamw"},
        {"optimizer": "adam", "foreach": True},
        {"fused": True},
    ],
    ids=str,
)
def test_updates_have_the_bits_of_the_plain_step(
    kind: type[nn.Module], engine: str, changes: dict[str, object]
) -> None:
    torch.manual_seed(0)
    network = kind().train()
    found = []
    for in_backward in (False, True):
        own = copy.deepcopy(network)
        own = dse.lean(own, IMAGES) if engine == "lean" else own
        settings = StepSettings(optimizer_in_backward=in_backward, **changes)  # type: ignore[arg-type]
        found.append(trained(own, settings))
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]), name


def test_a_loop_of_ones_own_updates_in_backward_until_it_is_removed() -> None:
    network = Tied()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    remove = dse.update_in_backward(optimizer)
    before = network.stem.weight.detach().clone()
    network(IMAGES).sum().backward()
    assert network.stem.weight.grad is None
    assert not torch.equal(network.stem.weight, before)
    with pytest.raises(TrainingError, match="gradients can't be accumulated"):
        network(IMAGES).sum().backward()
    optimizer.step()
    network(IMAGES).sum().backward()
    remove()
    network(IMAGES).sum().backward()
    assert network.stem.weight.grad is not None


def test_what_needs_all_gradients_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="doesn't go with accumulate = 2") as caught:
        StepSettings(accumulate=2, optimizer_in_backward=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="set_to_none=False keeps them"):
        StepSettings(set_to_none=False, optimizer_in_backward=True)
    with pytest.raises(ValueError, match="set accumulate to 1"):
        TrainingConfig(accumulate=2, optimizer_in_backward=True)
    with pytest.raises(ConfigError, match="a step has no setting 'clip_norm'"):
        dse.lean(Tied(), IMAGES, "full", "1 MiB", clip_norm=1.0)


class Indexed(nn.Module):
    """A parameter is read by the numbers in a buffer, as a window's position biases are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.shifts = nn.Parameter(torch.randn(4))
        self.register_buffer("places", torch.arange(8) // 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x).relu())
        return self.head((x + self.shifts[self.places].view(-1, 1, 1)).mean((2, 3)))


def test_buffers_of_integers_are_not_updated() -> None:
    settings = StepSettings(optimizer="adamw", optimizer_in_backward=True)
    own = dse.lean(Indexed(), IMAGES, "full", "least", settings=settings)
    model = MemoryModel.compile(own, IMAGES, groups=(), settings=settings)
    assert own.lean_plan.peak_bytes == int(model.peaks([], batch_size=len(IMAGES)))


@pytest.mark.parametrize("budget", [None, "least"])
def test_a_real_step_holds_what_is_predicted_and_less(budget: str | None) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = nn.Sequential(
        *(nn.Sequential(nn.Conv2d(c, 128, 3, padding=1), nn.ReLU()) for c in (3, 128, 128)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 3),
    )
    images, labels = torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    peaks = {}
    for in_backward in (False, True):
        settings = StepSettings(optimizer="sgd", optimizer_in_backward=in_backward)
        own = dse.lean(copy.deepcopy(network), images, "full", budget, settings=settings)
        model = MemoryModel.compile(own, images, groups=(), settings=settings)
        peaks[in_backward] = int(model.peaks([], batch_size=2))
        measured = measure_peak(own, images, labels, settings=settings, timed_steps=1)
        assert peaks[in_backward] <= measured.peak_bytes
        if budget is not None:
            assert own.lean_plan.peak_bytes == peaks[in_backward]
    assert peaks[True] < 0.85 * peaks[False]
