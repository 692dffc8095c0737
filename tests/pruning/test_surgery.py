"""Pruned networks compute what the whole one would without the removed channels."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dse.errors import PruningError
from dse.pruning.groups import ChannelGroup, find_groups
from dse.pruning.importance import group_importance
from dse.pruning.resize import resized
from dse.pruning.surgery import keep_indices, prune
from support import couplings

MODELS = torchvision.models

# Networks whose channels meet only in convolutions and linear layers; a layer norm's removed
# channels would change the scale of the others.
SEPARABLE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **{
        kind.__name__: (kind, (2, 3, 8, 8))
        for kind in (
            couplings.SumWithConcat,
            couplings.ConcatWithInput,
            couplings.ConcatTwice,
            couplings.SumWithInput,
            couplings.Grouped,
            couplings.GroupedConcat,
            couplings.Flattened,
            couplings.Scaled,
            couplings.Deconvolution,
            couplings.Reused,
            couplings.Shuffled,
        )
    },
    "perceptron": (couplings.perceptron, (2, 10)),
    "sequence": (couplings.sequence, (2, 3, 16)),
    "mobilenet_v2": (lambda: MODELS.mobilenet_v2(num_classes=5), (2, 3, 32, 32)),
    "mobilenet_v3": (lambda: MODELS.mobilenet_v3_small(num_classes=5), (2, 3, 32, 32)),
    "resnext": (
        lambda: MODELS.ResNet(
            MODELS.resnet.Bottleneck, [1, 2, 1, 1], num_classes=5, groups=4, width_per_group=4
        ),
        (2, 3, 32, 32),
    ),
    "regnet_y": (lambda: MODELS.regnet_y_400mf(num_classes=5), (2, 3, 32, 32)),
    "densenet": (
        lambda: MODELS.DenseNet(8, (2, 3, 2), 16, bn_size=2, num_classes=5),
        (2, 3, 32, 32),
    ),
    "squeezenet": (lambda: MODELS.squeezenet1_1(num_classes=5), (2, 3, 32, 32)),
}


def some_counts(groups: Sequence[ChannelGroup]) -> list[int]:
    rng = np.random.default_rng(0)
    return [int(rng.integers(1, g.channels // g.multiple + 1)) * g.multiple for g in groups]


def without_channels(
    network: nn.Module, groups: Sequence[ChannelGroup], kept: dict[str, Sequence[int]]
) -> nn.Module:
    """Make the network's layers read zeros where channels are to be gone."""
    for group in groups:
        removed = set(range(group.channels)) - set(kept[group.name])
        for member in group.members:
            if member.dimension != "in" or not removed:
                continue
            positions = torch.tensor([p for c in removed for p in member.positions(c)])
            network.get_submodule(member.module).register_forward_pre_hook(
                lambda _, inputs, positions=positions: inputs[0].index_fill(1, positions, 0.0)
            )
    return network


@pytest.mark.parametrize("name", SEPARABLE)
def test_outputs_equal_the_whole_networks_without_the_removed_channels(name: str) -> None:
    build, shape = SEPARABLE[name]
    torch.manual_seed(0)
    network = build().double().eval()
    x = torch.randn(shape, dtype=torch.float64)
    groups = find_groups(network, x)
    counts = some_counts(groups)
    importance = group_importance(network, groups)
    pruned = prune(network, groups=groups, kept=counts, importance=importance)
    kept = {
        group.name: keep_indices(group, count, scores=importance[group.name]).tolist()
        for group, count in zip(groups, counts, strict=True)
    }
    torch.testing.assert_close(pruned(x), without_channels(network, groups, kept)(x))


def test_the_whole_network_comes_back_as_a_copy() -> None:
    network = couplings.Grouped().train()
    x = torch.randn(2, 3, 8, 8)
    groups = find_groups(network, x)
    network.norm.eval()
    network.stem.weight.requires_grad_(False)
    same = prune(network, groups=groups, kept=[group.channels for group in groups])
    assert torch.equal(same(x), network(x))
    assert same.stem.weight.data_ptr() != network.stem.weight.data_ptr()
    assert not same.stem.weight.requires_grad
    assert same.training
    assert not same.norm.training


def test_pruned_networks_train() -> None:
    network = couplings.Grouped()
    groups = find_groups(network, torch.zeros(2, 3, 8, 8))
    pruned = prune(network, groups=groups, kept=some_counts(groups))
    pruned(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in pruned.parameters())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_without_importance_the_first_channels_stay() -> None:
    network = couplings.Scaled()
    groups = find_groups(network, torch.zeros(1, 3, 8, 8))
    pruned = prune(network, groups=groups, kept=[3, 6])
    assert torch.equal(pruned.first.weight, network.first.weight[:3])
    assert torch.equal(pruned.scale, network.scale[:3])


def test_impossible_requests_are_refused() -> None:
    network = couplings.Scaled()
    groups = find_groups(network, torch.zeros(1, 3, 8, 8))
    with pytest.raises(PruningError, match="first: 9 channels can't be kept of 8"):
        prune(network, groups=groups, kept=[9, 6])
    with pytest.raises(PruningError, match="first: 0 channels can't be kept"):
        prune(network, groups=groups, kept=[0, 6])
    with pytest.raises(PruningError, match="second: importance gives no score"):
        prune(network, groups=groups, kept=[3, 3], importance={"first": np.ones(8)})


@given(data=st.data(), blocks=st.integers(1, 6), width=st.integers(1, 8))
def test_every_block_keeps_an_equal_share_of_its_best(
    data: st.DataObject, blocks: int, width: int
) -> None:
    group = ChannelGroup("conv", blocks * width, blocks, ())
    share = data.draw(st.integers(1, width))
    scores = np.array(
        data.draw(st.lists(st.floats(0, 1), min_size=blocks * width, max_size=blocks * width))
    )
    kept = keep_indices(group, share * blocks, scores=scores)
    assert sorted(set(kept.tolist())) == kept.tolist()
    for block in range(blocks):
        own = set(range(block * width, (block + 1) * width))
        stay = own & set(kept.tolist())
        assert len(stay) == share
        assert min(scores[i] for i in stay) >= max((scores[i] for i in own - stay), default=0)


def test_among_equals_the_first_stay() -> None:
    group = ChannelGroup("conv", 6, 2, ())
    assert keep_indices(group, 4, scores=np.ones(6)).tolist() == [0, 1, 3, 4]
    assert keep_indices(group, 4).tolist() == [0, 1, 3, 4]


def test_shapes_are_those_that_resizing_promises() -> None:
    network = couplings.Grouped()
    groups = find_groups(network, torch.zeros(1, 3, 8, 8))
    counts = some_counts(groups)
    pruned, promised = prune(network, groups=groups, kept=counts), resized(network, groups, counts)
    assert repr(pruned) == repr(promised)
    assert shapes(pruned) == shapes(promised)


def shapes(network: nn.Module) -> dict[str, torch.Size]:
    tensors: dict[str, Tensor] = network.state_dict()
    return {name: tensor.shape for name, tensor in tensors.items()}
