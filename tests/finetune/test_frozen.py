"""A frozen trunk is computed once, and the training comes to the same."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.convnext import CNBlockConfig

from dse.config import TrainingConfig
from dse.data import Part
from dse.finetune import loop
from dse.finetune.frozen import cached_batches, find_tail, trunk_outputs
from dse.finetune.loop import finetune
from dse.step.schemes import apply_scheme
from support.networks import Residual

SETTINGS = TrainingConfig(batch_size=8, learning_rate=0.1, threads=1)


def part(images: int = 30, size: int = 12, **others: object) -> Part:
    generator = torch.Generator().manual_seed(0)
    return Part(
        name="train",
        images=torch.randint(0, 256, (images, 3, size, size), generator=generator).byte(),
        labels=torch.arange(images) % 3,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        **others,  # type: ignore[arg-type]
    )


class Twisted(nn.Module):
    """Ways in which the last layers aren't a function of the frozen ones alone."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.trunk = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8, track_running_stats=False)
        self.head = nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.trunk(images)
        if self.how == "random":
            features = nn.functional.dropout(features)  # whatever the mode
        if self.how == "batch":
            features = self.norm(features)
        features = features.mean(dim=(2, 3))
        if self.how == "twice":
            return self.head(features) + self.head(features.relu())
        return self.head(features).tanh() if self.how == "after" else self.head(features)


def scheme(network: nn.Module, name: str, size: int = 12) -> nn.Module:
    apply_scheme(network, torch.zeros(2, 3, size, size), name)
    return network


def test_the_tail_is_the_smallest_module_with_all_that_trains() -> None:
    mobile = torchvision.models.mobilenet_v2(num_classes=3)
    images = torch.randn(3, 3, 32, 32)
    assert find_tail(scheme(mobile, "last", 32), images) == "classifier.1"
    resnet = torchvision.models.resnet18(num_classes=3)
    assert find_tail(scheme(resnet, "last", 32), images) == "fc"
    assert find_tail(scheme(Residual(), "last"), torch.randn(3, 3, 12, 12)) == "head"


def convnext() -> nn.Module:
    setting = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)]
    return torchvision.models.ConvNeXt(setting, stochastic_depth_prob=0.9, num_classes=3)


@pytest.mark.parametrize("name", ["convnext", "efficientnet_b0", "mobilenet_v3_small"])
def test_a_trunk_with_random_layers_is_computed_once_under_last(name: str) -> None:
    torch.manual_seed(0)
    options = {"stochastic_depth_prob": 0.9} if name == "efficientnet_b0" else {}
    named = torchvision.models.get_model
    network = convnext() if name == "convnext" else named(name, num_classes=3, **options)
    images = torch.randn(3, 3, 32, 32)
    tail = find_tail(scheme(network, "last", 32), images)
    assert tail is not None
    head = network.get_submodule(tail)
    assert isinstance(head, nn.Linear)
    given: list[torch.Tensor] = []
    head.register_forward_pre_hook(lambda _head, args: given.append(args[0]))
    for _ in range(2):
        network(images)
    assert torch.equal(*given)


@pytest.mark.parametrize("name", ["full", "norm", "bias", "from:second"])
def test_other_schemes_train_more_than_the_last_module(name: str) -> None:
    assert find_tail(scheme(Residual(), name), torch.randn(3, 3, 12, 12)) is None


@pytest.mark.parametrize("how", ["random", "batch", "twice", "after"])
def test_what_is_no_fixed_function_is_left_alone(how: str) -> None:
    torch.manual_seed(0)
    assert find_tail(scheme(Twisted(how), "last"), torch.randn(3, 3, 12, 12)) is None
    assert find_tail(scheme(Twisted("plain"), "last"), torch.randn(3, 3, 12, 12)) == "head"


def test_the_training_comes_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    start = torchvision.models.mobilenet_v2(num_classes=3, dropout=0.5)
    scheme(start, "last", 32)
    images = part(size=32)
    spared, whole = copy.deepcopy(start), copy.deepcopy(start)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    spared.features.register_forward_hook(count)
    one = finetune(spared, images, settings=SETTINGS, epochs=5, seed=7)
    # One pass finds the frozen modules, three steps, the tail is probed twice, four batches.
    assert calls == 1 + loop.TIMED_STEPS + 2 + 4
    monkeypatch.setattr(loop, "TIMED_STEPS", 10**6)
    other = finetune(whole, images, settings=SETTINGS, epochs=5, seed=7)
    assert len(one.losses) == len(other.losses) == 15
    torch.testing.assert_close(torch.tensor(one.losses), torch.tensor(other.losses))
    for name, tensor in spared.state_dict().items():
        torch.testing.assert_close(tensor, whole.state_dict()[name], msg=name)
    assert one.step_seconds > 0


def test_augmented_images_and_short_trainings_go_through_the_whole_network() -> None:
    for images, epochs in ((part(augment="flip"), 3), (part(), 1)):
        network = scheme(Residual(), "last")
        calls: list[int] = []
        network.stem.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        trace = finetune(network, images, settings=SETTINGS, epochs=epochs, seed=7)
        assert len(calls) == len(trace.losses) + 1  # one pass finds what is frozen


def test_batches_are_those_of_the_images() -> None:
    images = part()
    network = scheme(Residual(), "last")
    outputs = trunk_outputs(network, "head", images, batch_size=8, memory_format="contiguous")
    assert outputs is not None
    assert outputs.shape == (30, 8)
    pairs = zip(
        cached_batches(outputs, images, batch_size=8, seed=3),
        images.batches(8, seed=3, drop_last=True),
        strict=True,
    )
    for (features, labels), (raw, wanted) in pairs:
        assert torch.equal(labels, wanted)
        with torch.no_grad():
            torch.testing.assert_close(network.head(features), network(raw))
