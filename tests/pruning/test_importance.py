import numpy as np
import pytest
import torch
from torch import nn

from dse.errors import PruningError
from dse.pruning.groups import find_groups
from dse.pruning.importance import group_importance
from support import couplings

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
    with pytest.raises(PruningError, match="unknown importance 'taylor'; use one of l1, l2"):
        group_importance(network, groups, criterion="taylor")  # type: ignore[arg-type]
    with pytest.raises(PruningError, match="first: no tensor of this channel group"):
        group_importance(network, groups, criterion="batch-norm-scale")
