"""Every torchvision family that can be pruned, against Torch-Pruning's own surgery."""

import copy

import numpy as np
import pytest
import torch
import torch_pruning as tp
import torchvision
from torch import Tensor, nn

from dse.pruning.groups import ChannelGroup, survey_channels
from dse.pruning.importance import group_importance
from dse.pruning.resize import resized
from dse.pruning.surgery import keep_indices, prune

FAMILIES = {
    "alexnet": 7,
    "convnext_tiny": 22,
    "densenet121": 120,
    "efficientnet_b0": 40,
    "efficientnet_v2_s": 75,
    "googlenet": 57,
    "inception_v3": 94,
    "mnasnet0_5": 25,
    "mobilenet_v2": 25,
    "mobilenet_v3_small": 27,
    "regnet_y_400mf": 53,
    "resnet18": 12,
    "resnext50_32x4d": 37,
    "squeezenet1_0": 25,
    "vgg11_bn": 10,
}

# Minutes together on a busy machine; smaller networks of the same kind are in test_surgery.py.
LARGE = ("alexnet", "densenet121", "efficientnet_v2_s", "inception_v3", "vgg11_bn")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in FAMILIES],
)
def test_surgery_and_resizing_agree_with_torch_pruning(name: str) -> None:
    torch.manual_seed(0)
    options = {"aux_logits": False, "init_weights": False}
    network = torchvision.models.get_model(
        name, num_classes=10, **(options if name in ("googlenet", "inception_v3") else {})
    )
    size = {"inception_v3": 96, "alexnet": 64, "squeezenet1_0": 64}.get(name, 32)
    x = torch.randn(1, 3, size, size)
    survey = survey_channels(network, x)
    assert not survey.refused
    groups = survey.groups
    assert len(groups) == FAMILIES[name]
    rng = np.random.default_rng(0)
    counts = [int(rng.integers(1, g.channels // g.multiple + 1)) * g.multiple for g in groups]
    # Torch-Pruning keeps the same places in each convolution group, so let them score the same.
    importance = {
        key: np.tile(scores.reshape(group.multiple, -1)[0], group.multiple)
        for group, (key, scores) in zip(
            groups, group_importance(network, groups).items(), strict=True
        )
    }
    pruned = prune(network, groups=groups, kept=counts, importance=importance)
    promised = resized(network, groups, counts)
    assert repr(pruned) == repr(promised)
    assert shapes(pruned) == shapes(promised)
    assert pruned.eval()(x).shape == (1, 10)
    theirs = pruned_by_torch_pruning(network, x, groups, counts, importance).state_dict()
    for tensor_name, tensor in pruned.state_dict().items():
        assert torch.equal(tensor, theirs[tensor_name]), tensor_name


def pruned_by_torch_pruning(
    network: nn.Module,
    x: Tensor,
    groups: tuple[ChannelGroup, ...],
    counts: list[int],
    importance: dict[str, np.ndarray],
) -> nn.Module:
    network = copy.deepcopy(network)
    graph = tp.DependencyGraph().build_dependency(
        network, example_inputs=x, forward_fn=lambda module, x: module(x), verbose=False
    )
    for group, count in zip(groups, counts, strict=True):
        kept = set(keep_indices(group, count, scores=importance[group.name]).tolist())
        removed = [channel for channel in range(group.channels) if channel not in kept]
        if removed:
            layer = network.get_submodule(group.name)
            prune_out = graph.get_pruner_of_module(layer).prune_out_channels
            graph.get_pruning_group(layer, prune_out, removed).prune()
    return network


def shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}
