import copy

import pytest
import torch
import torchvision
from torch import Tensor, nn

from dse.errors import PruningError
from dse.pruning import flow
from dse.pruning.groups import ChannelGroup, Member, find_groups, survey_channels
from support import couplings

IMAGE = torch.zeros(2, 3, 8, 8)


def described(network: nn.Module, example: Tensor = IMAGE) -> dict[str, tuple[int, int]]:
    return {g.name: (g.channels, g.multiple) for g in find_groups(network, example)}


def test_mobilenet_v2_has_the_groups_that_its_blocks_suggest() -> None:
    network = torchvision.models.mobilenet_v2(num_classes=5)
    groups = find_groups(network, torch.zeros(1, 3, 32, 32))
    names = [group.name for group in groups]
    assert len(groups) == 25
    assert names[:4] == [
        "features.0.0",
        "features.1.conv.1",
        "features.2.conv.0.0",
        "features.2.conv.2",
    ]
    assert names[-1] == "features.18.0"
    assert "classifier.1" not in names
    residual = groups[names.index("features.2.conv.2")]
    assert residual == ChannelGroup(
        "features.2.conv.2",
        24,
        1,
        (
            Member("features.2.conv.2", "out"),
            Member("features.3.conv.2", "out"),
            Member("features.2.conv.3", "both"),
            Member("features.3.conv.0.0", "in"),
            Member("features.3.conv.3", "both"),
            Member("features.4.conv.0.0", "in"),
        ),
    )
    hidden = groups[names.index("features.2.conv.0.0")]
    assert Member("features.2.conv.1.0", "both") in hidden.members  # depthwise


def test_groups_depend_neither_on_image_size_batch_weights_nor_chance() -> None:
    reference = find_groups(torchvision.models.mobilenet_v3_small(), torch.zeros(1, 3, 32, 32))
    other = find_groups(torchvision.models.mobilenet_v3_small(), torch.rand(4, 3, 64, 64))
    assert other == reference


def test_a_network_on_the_meta_device_has_the_same_groups() -> None:
    network = couplings.Grouped()
    expected = find_groups(network, IMAGE)
    assert find_groups(network.to("meta"), IMAGE.to("meta")) == expected


def test_frozen_layers_have_groups_too() -> None:
    network = couplings.Grouped()
    expected = find_groups(network, IMAGE)
    assert find_groups(network.requires_grad_(False), IMAGE) == expected


def test_the_network_is_left_as_it_was() -> None:
    network = torchvision.models.mobilenet_v2(num_classes=5)
    network.features[3].eval()
    network.features[0].requires_grad_(False)
    gradient = network.classifier[1].weight.grad = torch.ones(5, 1280)
    before = copy.deepcopy(network)
    random_state = torch.get_rng_state()
    find_groups(network, torch.zeros(1, 3, 32, 32))
    assert torch.equal(torch.get_rng_state(), random_state)
    for (name, module), old in zip(network.named_modules(), before.modules(), strict=True):
        assert module.training == old.training, name
        assert not module._forward_hooks
    for parameter, old in zip(network.parameters(), before.parameters(), strict=True):
        assert parameter.requires_grad == old.requires_grad
        assert torch.equal(parameter, old)
    assert network.classifier[1].weight.grad is gradient
    assert torch.equal(gradient, torch.ones(5, 1280))
    assert network.features[0][0].weight.grad is None
    for buffer, old in zip(network.buffers(), before.buffers(), strict=True):
        assert torch.equal(buffer, old)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (couplings.SumWithConcat, {"left": (8, 1), "right": (4, 1), "last": (6, 1)}),
        (couplings.ConcatWithInput, {"first": (8, 1), "second": (6, 1)}),
        (couplings.ConcatTwice, {"first": (4, 1), "second": (6, 1)}),
        (couplings.SumWithInput, {"free": (8, 1)}),
        (couplings.Grouped, {"stem": (12, 6), "grouped": (24, 6), "last": (8, 1)}),
        (couplings.GroupedConcat, {"grouped": (6, 2)}),
        (couplings.Flattened, {"stem": (8, 1), "hidden": (10, 1)}),
        (couplings.Scaled, {"first": (8, 1), "second": (6, 1)}),
        (couplings.Deconvolution, {"first": (8, 1), "up": (6, 1), "last": (6, 1)}),
        (couplings.Reused, {"stem": (8, 1)}),
        (couplings.HardCoded, {"first": (8, 1)}),
        (couplings.Chunked, {"both": (6, 1), "last": (6, 1)}),
        (couplings.SoftmaxOverChannels, {"second": (6, 1)}),
        (couplings.WeightNormed, {"first": (8, 1), "second": (6, 1)}),
        (couplings.GroupNormed, {"first": (16, 4), "second": (8, 1)}),
        (couplings.Shuffled, {"grouped": (12, 3), "last": (6, 1)}),
        (couplings.ChannelsLastFlatten, {"first": (8, 1), "second": (6, 1)}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_hand_written_networks(
    network: type[nn.Module], expected: dict[str, tuple[int, int]]
) -> None:
    assert described(network()) == expected


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (couplings.SumWithConcat, ["left", "right", "last"]),
        (couplings.ConcatTwice, ["first", "second"]),
        (couplings.Grouped, ["stem", "grouped", "last"]),
        (couplings.Flattened, ["stem", "hidden"]),
        (couplings.GroupNormed, ["first", "second"]),
        (couplings.Shuffled, ["grouped", "last"]),
        (couplings.ChannelsLastFlatten, ["first", "second"]),
        (couplings.SoftmaxOverChannels, ["second"]),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_trial_with_fewer_channels_says_the_same(
    network: type[nn.Module], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "_TRIAL_CHANNELS", 4)
    assert list(described(network())) == expected


def test_many_disturbed_layers_in_a_row_are_no_trouble() -> None:
    """What was removed from one layer must not grow through what was removed from the next."""
    survey = survey_channels(torchvision.models.efficientnet_v2_s(), torch.zeros(1, 3, 64, 64))
    assert len(survey.groups) == 75
    assert not survey.refused


def test_networks_that_need_values_are_refused_in_one_line() -> None:
    class ValueDependent(couplings.Pooled):
        def __init__(self) -> None:
            super().__init__(8)
            self.conv = nn.Conv2d(3, 8, 1)

        def features(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(PruningError, match="control flow must not depend on values") as caught:
        find_groups(ValueDependent(), IMAGE)
    assert "\n" not in str(caught.value)
    with pytest.raises(PruningError, match=r"of shape \(1, 5, 8, 8\)"):
        find_groups(couplings.Grouped(), torch.zeros(2, 5, 8, 8))


def test_networks_without_images() -> None:
    assert described(couplings.perceptron(), torch.zeros(1, 10)) == {"0": (20, 1), "3": (30, 1)}
    assert described(couplings.sequence(), torch.zeros(1, 3, 16)) == {"0": (8, 1), "3": (6, 1)}


def test_positions_follow_concatenation_and_flattening() -> None:
    (_, right, _) = find_groups(couplings.SumWithConcat(), IMAGE)
    assert right.members == (
        Member("right", "out"),
        Member("wide", "out", start=8),
        Member("last", "in", start=8),
    )
    assert list(right.members[2].positions(3)) == [11]
    stem = find_groups(couplings.Flattened(), IMAGE)[0]
    flattened = stem.members[-1]
    assert flattened == Member("hidden", "in", span=64)
    assert flattened.positions(2) == range(128, 192)


@pytest.mark.parametrize(
    ("network", "layer", "reason"),
    [
        (couplings.SumWithInput, "tied", "added to, or concatenated with, the network's input"),
        (couplings.HardCoded, "second", "doesn't run with other channel counts"),
        (couplings.Shuffled, "first", "can't shrink evenly"),
        (couplings.SoftmaxOverChannels, "first", "mixed or reordered by softmax"),
        (couplings.GroupedConcat, "left", "can't shrink evenly"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_what_stays_whole_is_named_with_its_reason(
    network: type[nn.Module], layer: str, reason: str
) -> None:
    survey = survey_channels(network(), IMAGE)
    assert reason in survey.refused[layer]
    assert "\n" not in survey.refused[layer]
    assert layer not in {group.name for group in survey.groups}


def test_lazy_layers_are_refused_by_name() -> None:
    with pytest.raises(PruningError, match="0: a lazy layer"):
        find_groups(nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2)), torch.zeros(1, 4))


def test_a_network_with_nothing_but_its_output_is_refused() -> None:
    with pytest.raises(PruningError, match="no layer but its output's"):
        find_groups(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.zeros(1, 3, 2, 2))


def test_layers_that_run_in_training_alone_are_refused_by_name() -> None:
    class WithAuxiliaryHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3)
            self.auxiliary = nn.Linear(8, 2)
            self.head = nn.Linear(8, 2)

        def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            pooled = self.stem(images).mean(dim=(2, 3))
            if self.training:
                return self.head(pooled), self.auxiliary(pooled)
            return self.head(pooled)

    with pytest.raises(PruningError, match="auxiliary runs only while the network trains"):
        find_groups(WithAuxiliaryHead(), IMAGE)
