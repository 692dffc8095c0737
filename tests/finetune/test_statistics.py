"""Running statistics: recomputed, chosen, and left alone where pruning changed nothing."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dse.candidate import Candidate
from dse.data import DataParts
from dse.errors import TrainingError
from dse.finetune import settled
from dse.finetune.proxy import Proxy
from dse.finetune.settled import Statistics
from dse.finetune.statistics import (
    changed_norms,
    recalibrate_batch_norm,
    running_norms,
    settle_statistics,
    uncomputed,
)
from dse.pruning.groups import find_groups
from dse.pruning.importance import group_importance
from dse.pruning.surgery import prune
from support.networks import Residual
from support.small_study import fresh, small_proxy, small_study

IMAGE = torch.zeros(2, 3, 12, 12)
SLIM = Candidate(channels={"first": 4})


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def known(proxy: Proxy, value: float = 0.25) -> Proxy:
    """The proxy with a network whose statistics look as if they had been computed."""
    for norm in norms(proxy.pruner.network):
        norm.running_mean.fill_(value)  # type: ignore[union-attr]
    return proxy


def of_scheme(scheme: str, **proxy: object) -> Proxy:
    study = small_study()
    training = study.training.model_copy(update={"scheme": scheme})
    changed = study.proxy.model_copy(update=proxy)
    return small_proxy(study.model_copy(update={"training": training, "proxy": changed}))


def buffers(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.named_buffers()}


def test_statistics_are_the_plain_average_over_batches() -> None:
    norm = nn.BatchNorm2d(3)
    norm.running_mean.fill_(100.0)  # type: ignore[union-attr]
    images = torch.randn(4, 8, 3, 5, 5) + torch.arange(4.0)[:, None, None, None, None]
    seen = recalibrate_batch_norm(norm, [(batch, torch.zeros(8)) for batch in images])
    assert seen == 32
    assert norm.running_mean is not None
    assert norm.running_var is not None
    expected_mean = images.mean(dim=(1, 3, 4)).mean(dim=0)
    expected_var = torch.stack([batch.movedim(1, 0).flatten(1).var(dim=1) for batch in images])
    torch.testing.assert_close(norm.running_mean, expected_mean)
    torch.testing.assert_close(norm.running_var, expected_var.mean(dim=0))


def test_nothing_but_statistics_changes_in_recalibration(data: DataParts) -> None:
    network = fresh("last")
    modes = [module.training for module in network.modules()]
    parameters = [parameter.detach().clone() for parameter in network.parameters()]
    batches = data.train.batches(16, seed=1, drop_last=True)
    assert recalibrate_batch_norm(network, batches) == len(data.train) // 16 * 16
    assert [module.training for module in network.modules()] == modes
    assert [norm.momentum for norm in norms(network)] == [0.1, 0.1]
    for before, after in zip(parameters, network.parameters(), strict=True):
        assert torch.equal(before, after)
    assert all(norm.running_mean.abs().sum() > 0 for norm in norms(network))  # type: ignore[union-attr]


def test_frozen_statistics_can_be_left_alone(data: DataParts) -> None:
    network = fresh("from:first")
    batches = data.train.batches(16, drop_last=True)
    recalibrate_batch_norm(network, batches, norms=norms(network)[1:])
    frozen, trained = norms(network)
    assert torch.equal(frozen.running_mean, torch.zeros(16))  # type: ignore[arg-type]
    assert trained.running_mean.abs().sum() > 0  # type: ignore[union-attr]


def test_a_network_without_running_statistics_reads_no_batch() -> None:
    def unread() -> Iterator[tuple[Tensor, Tensor]]:
        raise AssertionError("read")
        yield

    network = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.GroupNorm(1, 3))
    assert recalibrate_batch_norm(network, unread()) == 0


def test_no_batches_leave_no_statistics_and_are_refused() -> None:
    with pytest.raises(TrainingError, match="no batches"):
        recalibrate_batch_norm(nn.BatchNorm2d(3), [])


def test_one_value_per_channel_is_refused_in_our_words() -> None:
    with pytest.raises(TrainingError, match=r"raise training.batch_size"):
        recalibrate_batch_norm(nn.BatchNorm2d(3), [(torch.zeros(1, 3, 1, 1), torch.zeros(1))])


@pytest.mark.parametrize("fidelity", ["calibrate", "short", "full"])
def test_the_unpruned_network_keeps_its_own_statistics(fidelity: str) -> None:
    proxy = known(of_scheme("last"))
    network, evaluation = proxy.train(Candidate(), fidelity=fidelity)  # type: ignore[arg-type]
    for name, tensor in buffers(network).items():
        assert torch.equal(tensor, proxy.pruner.network.get_buffer(name)), name
    assert evaluation.images_forward == len(proxy.pruner.data.selection)


def test_networks_are_compared_only_if_some_statistics_may_be_settled(data: DataParts) -> None:
    def compared() -> dict[str, nn.BatchNorm2d]:
        calls.append("compared")
        return {}

    calls: list[str] = []
    for scheme, trains, expected in (("full", True, 0), ("full", False, 1), ("last", True, 1)):
        calls.clear()
        statistics = Statistics(study=small_study(), data=data, seed=1)
        statistics.before(fresh(scheme), changed=compared, trains=trains)
        assert len(calls) == expected, (scheme, trains)


def test_statistics_that_were_never_computed_are_computed_of_the_unpruned_too() -> None:
    proxy = of_scheme("last")
    assert len(uncomputed(running_norms(proxy.pruner.network))) == 2
    network, _ = proxy.train(Candidate(), fidelity="short")
    assert not uncomputed(running_norms(network))


def test_nothing_is_ever_recomputed_from_no_batches() -> None:
    for scheme in ("last", "full"):
        proxy = known(of_scheme(scheme, calibrate_batches=0))
        network, evaluation = proxy.train(SLIM, fidelity="short")
        assert evaluation.images_forward == len(proxy.pruner.data.selection)
        first = norms(network)[0].running_mean
        assert first is not None
        assert bool((first == 0.25).all()) == (scheme == "last")


def test_a_norm_before_the_pruned_layer_keeps_its_statistics() -> None:
    proxy = known(of_scheme("last"), value=5.0)
    network, _ = proxy.train(Candidate(channels={"first": 4}), fidelity="calibrate")
    assert bool((norms(network)[0].running_mean == 5.0).all())  # type: ignore[union-attr]


def pruned(
    network: nn.Module, groups: tuple[object, ...], kept: list[int]
) -> tuple[nn.Module, dict[str, object]]:
    importance = group_importance(network, groups)  # type: ignore[arg-type]
    shared = {"groups": groups, "kept": kept, "importance": importance}
    return prune(network, **shared), shared  # type: ignore[arg-type]


def test_only_norms_that_are_given_something_else_are_changed() -> None:
    torch.manual_seed(0)
    network = Residual(width=16).eval()
    groups = find_groups(network, IMAGE)
    images = torch.randn(2, 3, 12, 12)
    names = [group.name for group in groups]
    full = [group.channels for group in groups]
    for name, expected in (("first", set()), ("stem.0", {"norm"})):
        kept = [4 if one == name else count for one, count in zip(names, full, strict=True)]
        small, shared = pruned(network, groups, kept)
        assert set(changed_norms(network, small, images, **shared)) == expected  # type: ignore[arg-type]
    same, shared = pruned(network, groups, full)
    assert not changed_norms(network, same, images, **shared)  # type: ignore[arg-type]
    with torch.no_grad():
        same.get_parameter("stem.0.weight").mul_(2)  # as recovery would
    assert set(changed_norms(network, same, images, **shared)) == {"stem.1", "norm"}  # type: ignore[arg-type]


def test_the_statistics_with_the_least_loss_are_taken() -> None:
    norm = nn.BatchNorm1d(2)
    norm.running_mean.copy_(torch.tensor([4.0, 8.0]))  # type: ignore[union-attr]
    norm.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
    batches = [(torch.tensor([[0.0, 0.0], [2.0, 2.0]]), torch.zeros(2))]
    for wanted, share, mean in ((4.0, 0.0, 4.0), (2.6, 0.5, 2.5), (0.0, 1.0, 1.0)):
        copy = nn.BatchNorm1d(2)
        copy.load_state_dict(norm.state_dict())

        def loss(copy: nn.BatchNorm1d = copy, wanted: float = wanted) -> float:
            return abs(float(copy.running_mean[0]) - wanted)  # type: ignore[index]

        found = settle_statistics(
            copy,
            batches,
            norms={"": copy},
            judge=loss,
            best=settled._least,
        )
        assert (found.share, found.images_forward) == (share, 2)
        assert float(copy.running_mean[0]) == mean  # type: ignore[index]
        assert int(copy.num_batches_tracked) == (7 if share == 0 else 1)  # type: ignore[arg-type]


def test_those_that_choose_are_training_images_and_recompute_nothing(data: DataParts) -> None:
    def marked(part_name: str) -> object:
        part = getattr(data, part_name)
        return replace(part, labels=torch.arange(len(part)))

    own = replace(data, train=marked("train"), selection=None, validation=None)  # type: ignore[arg-type]
    statistics = Statistics(study=small_study(), data=own, seed=3)
    held = statistics._held.labels
    rest = torch.cat([labels for _, labels in statistics._batches()])
    assert len(held) == settled._FEWEST
    assert not set(held.tolist()) & set(rest.tolist())
    again = Statistics(study=small_study(), data=own, seed=4)._held.labels
    assert torch.equal(held, again)
