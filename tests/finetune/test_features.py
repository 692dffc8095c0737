import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dse.config import TrainingConfig
from dse.data import DataParts
from dse.finetune.features import Separation, best_separation, separation
from dse.tasks.task import plain_task
from support.small_study import small_study

RECIPE = TrainingConfig(learning_rate=0.05, batch_size=16)


class Scaled(nn.Module):
    """An output layer on images that are multiplied and disturbed."""

    def __init__(self, features: int, *, scale: float = 1.0, noise: float = 0.0) -> None:
        super().__init__()
        self.scale, self.noise = scale, noise
        self.layer = nn.Linear(features, 3)

    def forward(self, images: Tensor) -> Tensor:
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        return self.layer((self.scale * (images + self.noise * noise)).flatten(1))


def judged(data: DataParts, **options: float) -> Separation:
    batch = next(data.train.batches(90))
    network = Scaled(batch[0][0].numel(), **options)
    return separation(network, [batch], task=plain_task(3), settings=RECIPE)


def test_features_are_judged_by_how_well_they_tell_labels_apart(data: DataParts) -> None:
    clean, noisy = judged(data), judged(data, noise=30.0)
    assert clean.error < 0.5 * noisy.error
    assert clean.accuracy > noisy.accuracy + 0.3
    constant = judged(data, scale=0.0)
    assert noisy.error == pytest.approx(constant.error, rel=0.2)
    assert constant.accuracy < 0.5


def test_features_that_the_optimizer_can_not_learn_from_are_seen(data: DataParts) -> None:
    good, bad = judged(data), judged(data, scale=1e-4)
    assert bad.error == pytest.approx(good.error, rel=1e-3)
    assert bad.accuracy < good.accuracy - 0.1
    assert best_separation([bad, good]) == 1


def test_features_that_are_not_finite_are_never_the_best(data: DataParts) -> None:
    broken = judged(data, scale=math.inf)
    assert (broken.error, broken.accuracy) == (math.inf, 0.0)
    assert best_separation([broken, judged(data, noise=30.0)]) == 1


def test_judging_is_repeatable_and_leaves_random_numbers_alone(data: DataParts) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    batch = next(data.train.batches(40))
    network = nn.Sequential(nn.Flatten(), nn.Linear(batch[0][0].numel(), 3))
    state = torch.get_rng_state()
    first, second = (
        separation(network, [batch], task=plain_task(3), settings=RECIPE) for _ in range(2)
    )
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_that_ends_in_no_layer_is_judged_by_its_output(data: DataParts) -> None:
    network = nn.Sequential(nn.AvgPool2d(12), nn.Flatten())
    found = separation(
        network, data.train.batches(50), task=plain_task(3), settings=small_study().training
    )
    assert 0 < found.error < 1
    assert found.images == len(data.train)


SEPARATIONS = st.builds(
    Separation,
    error=st.floats(0, 1),
    accuracy=st.integers(0, 100).map(lambda percent: percent / 100),
    images=st.just(100),
)


@given(st.lists(SEPARATIONS, min_size=1, max_size=5))
def test_the_best_is_not_clearly_less_accurate_and_has_the_least_error_of_those(
    found: list[Separation],
) -> None:
    best = found[best_separation(found)]
    top = max(one.accuracy for one in found)
    assert top - best.accuracy <= math.sqrt(top * (1 - top) / 100)
    assert all(best.error <= one.error for one in found if one.accuracy >= best.accuracy)
