import copy

import numpy as np
import pytest
import torch
import torch_pruning as tp
import torchvision
from torch import nn

from dse.errors import ConfigError, PruningError
from dse.pruning.groups import find_groups
from dse.pruning.importance import CRITERIA, group_importance
from support import couplings
from support.networks import Residual, SqueezeExcite

IMAGE = torch.zeros(1, 3, 8, 8)


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 2)
    )


def test_norms_of_all_coupled_weights_count_alike() -> None:
    network, x = chain(), torch.zeros(1, 3, 2, 2)
    groups = find_groups(network, x)
    filters = network[0].weight.detach().double().numpy().reshape(4, 3)
    reads = network[4].weight.detach().double().numpy().reshape(2, 4, 4).transpose(1, 0, 2)
    for criterion, order in (("l1", 1), ("l2", 2)):
        rows = [np.linalg.norm(part.reshape(4, -1), ord=order, axis=1) for part in (filters, reads)]
        expected = np.mean([row / row.mean() for row in rows], axis=0)
        found = group_importance(network, groups, criterion=criterion)
        np.testing.assert_allclose(found["0"], expected, rtol=1e-5)


def test_batch_norm_scales_alone() -> None:
    network = chain()
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([1.0, -3.0, 0.0, 4.0]))
    groups = find_groups(network, torch.zeros(1, 3, 2, 2))
    scores = group_importance(network, groups, criterion="batch-norm-scale")
    np.testing.assert_allclose(scores["0"], [0.5, 1.5, 0.0, 2.0])


def test_random_scores_follow_the_seed() -> None:
    network = couplings.Grouped()
    groups = find_groups(network, IMAGE)
    first, again, other = (
        group_importance(network, groups, criterion="random", seed=seed) for seed in (1, 1, 2)
    )
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])


@pytest.mark.parametrize(
    "kind", [couplings.SumWithConcat, couplings.Grouped, couplings.Deconvolution]
)
def test_every_group_has_a_score_per_channel(kind: type[nn.Module]) -> None:
    network = kind()
    groups = find_groups(network, IMAGE)
    scores = group_importance(network, groups)
    assert {name: row.shape for name, row in scores.items()} == {
        group.name: (group.channels,) for group in groups
    }
    assert all(np.isfinite(row).all() and (row > 0).all() for row in scores.values())


def test_wrong_criteria_are_refused() -> None:
    network = couplings.Scaled()
    groups = find_groups(network, IMAGE)
    with pytest.raises(ConfigError, match="unknown importance 'size': use l1, l2"):
        group_importance(network, groups, criterion="size")
    with pytest.raises(PruningError, match="'fisher' is computed from images"):
        group_importance(network, groups, criterion="fisher")
    with pytest.raises(PruningError, match="no images to judge channels by"):
        group_importance(network, groups, criterion="fisher", batches=[])
    with pytest.raises(PruningError, match="first: no tensor of this channel group"):
        group_importance(network, groups, criterion="batch-norm-scale")


def batches(size: int, classes: int = 2, count: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(3)
    return [(torch.randn(4, 3, size, size), torch.arange(4) * 7 % classes) for _ in range(count)]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_scores_every_channel_and_leaves_the_network_alone(criterion: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.BatchNorm2d(5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2),
    )  # fmt: skip
    groups = find_groups(network, IMAGE)
    before = copy.deepcopy(network.state_dict())
    first, again = (
        group_importance(network, groups, criterion=criterion, seed=1, batches=batches(8))
        for _ in range(2)
    )
    assert {name: scores.shape for name, scores in first.items()} == {"0": (6,), "3": (5,)}
    for name, scores in first.items():
        assert np.isfinite(scores).all()
        assert (scores >= 0).all()
        np.testing.assert_array_equal(scores, again[name])
    assert all(torch.equal(before[name], held) for name, held in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.training


@pytest.mark.parametrize("criterion", ["l1", "l2", "taylor"])
def test_each_tensor_scores_as_torch_pruning_has_it(criterion: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(5, 2),
    )  # fmt: skip
    (images, labels), = given = batches(8, count=1)  # fmt: skip
    groups = find_groups(network, images)
    found = group_importance(
        network,
        groups,
        criterion=criterion,
        batches=given,  # type: ignore[arg-type]
    )
    nn.functional.cross_entropy(network(images), labels).backward()
    if criterion == "taylor":
        theirs = tp.importance.TaylorImportance(group_reduction=None, normalizer=None)
    else:
        power = 1 if criterion == "l1" else 2
        theirs = tp.importance.MagnitudeImportance(power, group_reduction=None, normalizer=None)
    graph = tp.DependencyGraph().build_dependency(network, images)
    for group in groups:
        root = network.get_submodule(group.name)
        coupled = graph.get_pruning_group(
            root, tp.prune_conv_out_channels, idxs=list(range(group.channels))
        )
        rows = theirs(coupled).double().numpy() ** (0.5 if criterion == "l2" else 1)
        expected = np.mean([row / row.mean() for row in rows], axis=0)
        np.testing.assert_allclose(found[group.name], expected, rtol=1e-4)


def test_batch_norm_scales_are_torch_prunings() -> None:
    network, images = chain(), torch.zeros(1, 3, 2, 2)
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([1.0, -3.0, 0.5, 4.0]))
    graph = tp.DependencyGraph().build_dependency(network, images)
    coupled = graph.get_pruning_group(network[0], tp.prune_conv_out_channels, idxs=[0, 1, 2, 3])
    theirs = tp.importance.BNScaleImportance()(coupled).double().numpy()
    groups = find_groups(network, images)
    found = group_importance(network, groups, criterion="batch-norm-scale")
    np.testing.assert_allclose(found["0"], theirs, rtol=1e-5)


def test_fisher_is_the_hand_computed_one() -> None:
    """Two inputs, two channels, two classes: the derivative written out."""
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, 0.5]]))
        network[1].weight.copy_(torch.tensor([[0.5, 1.0], [-0.5, 2.0]]))
    images = torch.tensor([[1.0, 1.0], [2.0, -1.0]])
    labels = torch.tensor([0, 1])
    groups = find_groups(network, images)
    # image 1: hidden (3, -0.5), logits (1, -2.5); image 2: hidden (0, -2.5), logits (-2.5, -5)
    expected = np.zeros(2)
    for hidden, logits, label in (((3, -0.5), (1, -2.5), 0), ((0, -2.5), (-2.5, -5), 1)):
        weights = np.exp(logits)
        error = weights / weights.sum() - np.eye(2)[label]
        for channel, column in enumerate(((0.5, -0.5), (1.0, 2.0))):
            expected[channel] += (hidden[channel] * np.dot(error, column)) ** 2 / 2
    found = group_importance(network, groups, criterion="fisher", batches=[(images, labels)])
    np.testing.assert_allclose(found["0"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "kind", [couplings.SumWithConcat, couplings.Grouped, SqueezeExcite, Residual]
)
def test_fisher_is_the_derivative_of_removing_a_channel_everywhere(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = kind().eval()
    image = torch.randn(1, 3, 8, 8)
    groups = find_groups(network, image)
    label = torch.tensor([1])
    found = group_importance(network, groups, criterion="fisher", batches=[(image, label)])
    group = groups[0]
    readers = [member for member in group.members if member.dimension == "in"]

    def loss(factor: float, channel: int) -> float:
        copied = copy.deepcopy(network).double()
        for member in readers:
            at = list(member.positions(channel))

            def scale(_module: nn.Module, args: tuple[torch.Tensor], at: list[int] = at) -> object:
                scaled = args[0].clone()
                scaled[:, at] *= factor
                return (scaled, *args[1:])

            copied.get_submodule(member.module).register_forward_pre_hook(scale)
        with torch.no_grad():
            return float(nn.functional.cross_entropy(copied(image.double()), label))

    for channel in range(group.channels):
        slope = (loss(1.001, channel) - loss(0.999, channel)) / 0.002
        assert found[group.name][channel] == pytest.approx(slope**2, rel=1e-2, abs=1e-7)


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
def test_data_criteria_score_every_channel_and_leave_the_network_alone(criterion: str) -> None:
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2(num_classes=4).train()
    network.features[0].requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    groups = find_groups(network, torch.zeros(1, 3, 32, 32))
    found = group_importance(
        network,
        groups,
        criterion=criterion,
        batches=batches(32, classes=4),  # type: ignore[arg-type]
    )
    for group in groups:
        assert found[group.name].shape == (group.channels,)
        assert np.isfinite(found[group.name]).all()
        assert found[group.name].max() > 0
    assert network.training
    assert not any(p.requires_grad for p in network.features[0].parameters())
    assert network.features[1].conv[1].weight.requires_grad
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
