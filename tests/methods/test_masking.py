"""What a method prunes computes what the whole network would with those channels masked."""

import copy

import pytest
import torch
import torchvision
from torch import Tensor, nn

from dse.memory.model import MemoryModel
from dse.methods.greedy import Limits, peak_greedy
from dse.networks.examples import example_input
from dse.pruning.channel_group import Member
from dse.pruning.groups import find_groups
from dse.pruning.importance import group_importance
from dse.pruning.surgery import keep_indices, prune
from support.networks import Residual

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0])


def masked(network: nn.Module, removed: dict[str, list[tuple[Member, list[int]]]]) -> nn.Module:
    """A copy whose layers read zeros in place of some channels."""
    copied = copy.deepcopy(network)
    for name, reads in removed.items():
        places = [p for member, channels in reads for c in channels for p in member.positions(c)]

        def silence(_m: nn.Module, args: tuple[Tensor, ...], at: list[int] = places) -> object:
            given = args[0].clone()
            given[:, at] = 0
            return (given, *args[1:])

        copied.get_submodule(name).register_forward_pre_hook(silence)
    return copied


@pytest.mark.parametrize("criterion", ["l1", "fisher"])
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "efficientnet_b0", "Residual"])
def test_pruned_outputs_are_those_of_masked_channels(name: str, criterion: str) -> None:
    torch.manual_seed(0)
    factory = Residual if name == "Residual" else getattr(torchvision.models, name)
    network = factory(width=16) if name == "Residual" else factory(num_classes=3)
    with torch.no_grad():
        for norm in network.modules():  # statistics and shifts as after a training
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_()
                norm.bias.normal_()
    network = network.eval()
    groups = find_groups(network, IMAGES)
    model = MemoryModel.compile(network, example_input(2, 32), groups=groups)
    full = [group.channels for group in groups]
    budget = int(model.peaks(full, batch_size=8)) // 2
    limits = [Limits(g.channels, g.multiple, g.multiple) for g in groups]
    kept = peak_greedy(model, batch_size=8, limits=limits, budget_bytes=budget).channels[-1]
    importance = group_importance(network, groups, criterion=criterion, batches=[(IMAGES, LABELS)])
    pruned = prune(network, groups=groups, kept=kept.tolist(), importance=importance)
    removed: dict[str, list[tuple[Member, list[int]]]] = {}
    for group, count in zip(groups, kept.tolist(), strict=True):
        stay = keep_indices(group, count, scores=importance[group.name]).tolist()
        gone = sorted(set(range(group.channels)) - set(stay))
        for member in group.members:
            if member.dimension == "in":
                removed.setdefault(member.module, []).append((member, gone))
    assert any(gone for reads in removed.values() for _, gone in reads)
    with torch.no_grad():
        torch.testing.assert_close(
            pruned.eval()(IMAGES), masked(network, removed)(IMAGES), rtol=1e-3, atol=1e-4
        )
