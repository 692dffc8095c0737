"""What each method offers, on networks of several families."""

from dataclasses import replace
from functools import cache

import pytest
import torchvision
from torch import nn

from dse.candidate import with_recipe
from dse.config import SpaceConfig, TrainingConfig
from dse.engines.engine import study_plan
from dse.engines.network import run_by
from dse.errors import ConfigError, NetworkError
from dse.memory.model import MemoryModel
from dse.methods.alternatives import METHODS, Subject, alternatives, alternatives_in_run
from dse.networks.examples import example_input
from dse.pruning.groups import ChannelGroup, find_groups
from dse.pruning.shorten import shortened
from dse.sampling.search_space import SearchSpace
from dse.step.settings import StepSettings
from support.networks import Residual
from support.small_study import small_study

NETWORKS = (
    "mobilenet_v2",
    "resnet18",
    pytest.param("efficientnet_b0", marks=pytest.mark.slow),  # as MobileNetV2, and twice as large
    "Residual",
)
NO_BLOCKS = (
    "depth",
    "freeze",
    "checkpointing",
    "lite-residual",
)  # what a network without blocks can't have


@cache
def parts(name: str) -> tuple[nn.Module, tuple[ChannelGroup, ...]]:
    network = (
        Residual(width=16)
        if name == "Residual"
        else getattr(torchvision.models, name)(num_classes=3)
    )
    return network, find_groups(network, example_input(2, 32))


def model_of(
    name: str, training: TrainingConfig, image_size: int, *, drop: str | None = None
) -> MemoryModel:
    whole, found = parts(name)
    example, settings = example_input(2, image_size), StepSettings.of(training)
    network, groups = shortened(whole, example, found, drop)
    plan = study_plan(network, example, settings=settings, batch_size=training.batch_size)
    return MemoryModel.compile(
        run_by(network, example, plan), example, settings=settings, groups=groups
    )


@cache
def subject(name: str) -> Subject:
    base = small_study()
    study = base.model_copy(
        update={
            "data": base.data.model_copy(update={"image_size": 32}),
            "training": TrainingConfig(batch_size=8),
            "space": SpaceConfig(ratio=(0.0, 0.8)),
        }
    )
    model = model_of(name, study.training, 32)
    peak = int(model.peaks([group.channels for group in model.groups], batch_size=8))
    budgets = (peak // 3, peak // 2, 2 * peak)
    search = study.search.model_copy(update={"budgets": budgets})
    return Subject(
        study=study.model_copy(update={"search": search}),
        network=parts(name)[0],
        space=SearchSpace.resolve(study.space, model.groups),
        model=model,
    )


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", list(METHODS))
def test_every_alternative_fits_its_network_and_holds_no_more(name: str, method: str) -> None:
    one = subject(name)
    if name == "Residual" and method in NO_BLOCKS:
        with pytest.raises(NetworkError, match="blocks"):
            alternatives(method, one)
        return
    offered = alternatives(method, one)
    assert offered
    assert len({other.label for other in offered}) == len(offered)
    whole = int(one.model.peaks([group.channels for group in one.model.groups], batch_size=8))
    last = offered[-1]
    study = with_recipe(one.study, last.candidate)
    training = study.training
    assert training.batch_size * training.accumulate == 8
    if method == "micro-batch":  # gradients of earlier parts are held: it may save nothing
        return
    model = model_of(name, training, study.data.image_size, drop=last.candidate.drop)
    kept = last.candidate.kept(model.groups)
    assert model.peaks(kept, batch_size=training.batch_size) < whole


@pytest.mark.parametrize("method", list(METHODS))
def test_a_run_scores_some_of_them_under_labels_of_their_own(method: str) -> None:
    one, kind = subject("resnet18"), METHODS[method]
    scored, every = alternatives_in_run(method, one), alternatives(method, one)
    assert scored
    assert len({other.label for other in scored}) == len(scored)
    assert {other.method for other in scored} == {method}
    assert {other.candidate for other in scored} <= {other.candidate for other in every}
    if kind.most_in_run is not None:
        assert len(scored) == min(kind.most_in_run, len(every))
        assert scored[-1] == every[-1]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_rule_offers_a_network_for_each_budget_that_it_reaches(name: str) -> None:
    one = subject(name)
    smallest, middle, _ = one.study.search.budget_bytes
    offered = alternatives("peak-greedy", one)
    peaks = [
        int(one.model.peaks(other.candidate.kept(one.model.groups), batch_size=8))
        for other in offered
    ]
    assert peaks == sorted(peaks, reverse=True)
    for budget in (smallest, middle):
        assert any(0.9 * budget < peak <= budget for peak in peaks)


def test_freezing_starts_from_each_block_in_turn() -> None:
    labels = [other.label for other in alternatives("freeze", subject("resnet18"))]
    assert labels == [f"from:layer{layer}.{block}" for layer in (1, 2, 3, 4) for block in (0, 1)]


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_a_batch_that_can_not_be_cut_is_refused_by_its_size(batch_size: int) -> None:
    one = subject("resnet18")
    training = one.study.training.model_copy(update={"batch_size": batch_size})
    uncut = replace(one, study=one.study.model_copy(update={"training": training}))
    with pytest.raises(ConfigError, match=f"training.batch_size = {batch_size} can't be cut"):
        alternatives("micro-batch", uncut)


def test_unknown_methods_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown baseline method 'magic': use peak-greedy"):
        alternatives("magic", subject("Residual"))
