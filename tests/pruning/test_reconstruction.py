"""Layers that lost inputs, fitted to give what they gave before."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from dse.errors import PruningError
from dse.pruning.groups import find_groups
from dse.pruning.importance import group_importance
from dse.pruning.reconstruction import reconstruct
from dse.pruning.surgery import prune
from support.networks import Residual, SqueezeExcite, concatenating

IMAGES = [torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(i)) for i in range(16)]


def halved(network: nn.Module) -> tuple[nn.Module, dict[str, object]]:
    groups = find_groups(network, IMAGES[0])
    kept = [max(g.multiple, g.channels // 2 // g.multiple * g.multiple) for g in groups]
    importance = group_importance(network, groups)
    pruned = prune(network, groups=groups, kept=kept, importance=importance)
    return pruned, {"groups": groups, "kept": kept, "importance": importance}


@pytest.mark.parametrize("build", [Residual, SqueezeExcite, concatenating])
def test_outputs_come_nearer_to_the_unpruned_networks(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = build().eval()
    pruned, how = halved(network)
    before = copy.deepcopy(pruned).eval()
    fitted = reconstruct(network, pruned, IMAGES, **how)  # type: ignore[arg-type]
    assert fitted
    fresh = torch.randn(64, 3, 12, 12, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        wanted = network(fresh)
        errors = [float((one.eval()(fresh) - wanted).square().mean()) for one in (before, pruned)]
    assert errors[1] < 0.7 * errors[0]


def test_a_redundant_channel_is_made_up_for_exactly() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(1),
                            nn.Linear(320, 2)).eval()  # fmt: skip
    with torch.no_grad():
        network[0].weight[3], network[0].bias[3] = 2 * network[0].weight[1], 2 * network[0].bias[1]
    groups = find_groups(network, IMAGES[0])
    kept = [3 if g.name == "0" else g.channels for g in groups]
    importance = {g.name: np.arange(g.channels, 0, -1, dtype=float) for g in groups}
    pruned = prune(network, groups=groups, kept=kept, importance=importance).eval()
    assert reconstruct(
        network, pruned, IMAGES, groups=groups, kept=kept, importance=importance
    ) == ("2",)
    with torch.no_grad():
        torch.testing.assert_close(pruned(IMAGES[0]), network(IMAGES[0]), atol=2e-2, rtol=2e-2)


def test_nothing_runs_after_the_layer_that_is_fitted() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Flatten(1),
                            nn.Linear(320, 2)).eval()  # fmt: skip
    groups = [group for group in find_groups(network, IMAGES[0]) if group.name == "0"]
    importance = group_importance(network, groups)
    pruned = prune(network, groups=groups, kept=[2], importance=importance).eval()
    calls: list[str] = []
    pruned[3].register_forward_hook(lambda *_: calls.append("pruned"))
    network[3].register_forward_hook(lambda *_: calls.append("whole"))
    fitted = reconstruct(network, pruned, IMAGES, groups=groups, kept=[2], importance=importance)
    assert fitted == ("1",)
    assert calls == ["whole"]  # to find the order of the layers


def test_nothing_lost_leaves_everything_and_no_images_are_refused() -> None:
    network = Residual().eval()
    groups = find_groups(network, IMAGES[0])
    kept = [group.channels for group in groups]
    importance = group_importance(network, groups)
    same = copy.deepcopy(network)
    assert reconstruct(network, same, IMAGES, groups=groups, kept=kept, importance=importance) == ()
    with pytest.raises(PruningError, match="no images to fit"):
        reconstruct(network, same, [], groups=groups, kept=kept, importance=importance)
