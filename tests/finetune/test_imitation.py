"""Where a pruned network can imitate the unpruned one, and how near it comes."""

import pytest
import torch
import torchvision
from torch import nn

from dse.config import TrainingConfig
from dse.errors import TrainingError
from dse.finetune.imitation import find_places, imitate, outputs_at
from dse.pruning.groups import find_groups
from dse.pruning.surgery import prune
from support.networks import Residual
from support.small_study import small_proxy, small_study

IMAGES = torch.randn(2, 3, 32, 32)
SETTINGS = TrainingConfig(optimizer="adam", learning_rate=0.01, batch_size=16, threads=1)


def pruned_at(network: nn.Module, *names: str, image: torch.Tensor = IMAGES) -> nn.Module:
    groups = find_groups(network, image)
    kept = [g.channels // 2 if g.name in names else g.channels for g in groups]
    return prune(network, groups=groups, kept=kept)


def test_layers_of_equal_shape_up_to_the_one_after_the_last_pruned_are_compared() -> None:
    network = torchvision.models.mobilenet_v2(num_classes=3).eval()
    pruned = pruned_at(network, "features.0.0", "features.2.conv.0.0")
    places = find_places(network, pruned, IMAGES)
    compared = ("features.1.conv.1", "features.1.conv.2", "features.2.conv.2", "features.2.conv.3")
    assert places.compared == compared
    assert places.trained[0] == "features.0.0"
    assert places.trained[-1] == "features.2.conv.3"


def test_pruning_to_the_end_compares_the_output() -> None:
    network = torchvision.models.mobilenet_v2(num_classes=3).eval()
    pruned = pruned_at(network, *(group.name for group in find_groups(network, IMAGES)))
    assert find_places(network, pruned, IMAGES).compared == ("classifier.1",)


def test_nothing_runs_after_the_last_place_and_nothing_is_changed_in_place() -> None:
    network = torchvision.models.mobilenet_v2(num_classes=3).eval()
    later: list[int] = []
    network.features[3].register_forward_hook(lambda *_: later.append(1))
    found = outputs_at(network, ["features.0.1", "features.2.conv.3"], IMAGES)
    assert not later
    assert float(found["features.0.1"].detach().min()) < 0  # ReLU6 works in place on its input
    full = {}
    network.features[2].register_forward_hook(lambda _m, _i, out: full.setdefault("out", out))
    network(IMAGES)
    torch.testing.assert_close(found["features.2.conv.3"], full["out"])


def test_the_loss_falls_and_only_what_is_before_the_last_place_changes() -> None:
    proxy = small_proxy(small_study())
    whole = proxy.pruner.network
    pruned = pruned_at(whole, "first", image=torch.zeros(2, 3, 12, 12))
    before = {name: tensor.clone() for name, tensor in pruned.state_dict().items()}
    original = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    losses = imitate(whole, pruned, proxy.pruner.data.train, settings=SETTINGS, epochs=4, seed=1)
    assert len(losses) == 4 * (len(proxy.pruner.data.train) // 16)
    assert sum(losses[-5:]) < sum(losses[:5]) / 2
    after = pruned.state_dict()
    assert torch.equal(before["head.weight"], after["head.weight"])
    assert not torch.equal(before["first.weight"], after["first.weight"])
    assert all(torch.equal(original[name], tensor) for name, tensor in whole.state_dict().items())
    assert all(parameter.requires_grad for parameter in pruned.parameters())


def test_what_cannot_be_imitated_is_named() -> None:
    network = Residual(width=16)
    image = torch.zeros(2, 3, 12, 12)
    with pytest.raises(TrainingError, match="nothing was pruned"):
        find_places(network, network, image)
    proxy = small_proxy(small_study())
    whole, part = proxy.pruner.network, proxy.pruner.data.train
    pruned = pruned_at(whole, "first", image=image)
    large = SETTINGS.model_copy(update={"batch_size": 10**6})
    with pytest.raises(TrainingError, match="fewer than a batch"):
        imitate(whole, pruned, part, settings=large, epochs=1, seed=0)
    wild = SETTINGS.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match="loss of imitation is"):
        imitate(whole, pruned, part, settings=wild, epochs=1, seed=0)
