"""Statistics, training and scoring."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from dse.data import DataParts, Part
from dse.engines.engine import engine_plan
from dse.errors import TrainingError
from dse.finetune.loop import (
    derived_seed,
    evaluate,
    finetune,
    learning_rate_at,
)
from dse.step.canonical import training_step
from dse.step.settings import StepSettings
from support.small_study import TRAINING, fresh


def weights(network: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in network.state_dict().values()]


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_a_score_is_over_every_image_whatever_the_batch(data: DataParts, batch_size: int) -> None:
    network = fresh()
    part = data.validation
    images, labels = next(iter(part.batches(len(part))))
    network.eval()
    with torch.no_grad():
        logits = network(images)
    network.train()
    score = evaluate(network, part, batch_size=batch_size)
    assert network.training
    assert score.accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    assert score.loss == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-5)


def test_outputs_that_are_not_finite_are_refused(data: DataParts) -> None:
    network = fresh()
    network.head.bias.data[0] = math.nan
    with pytest.raises(TrainingError, match="selection part is nan"):
        evaluate(network, data.selection, batch_size=64)


@pytest.mark.parametrize(("engine", "tolerance"), [("lean", 0.0), ("lean:least", 1e-3)])
def test_lean_training_learns_what_stock_training_does(
    data: DataParts, engine: str, tolerance: float
) -> None:
    stock, network = fresh(), fresh()
    images, _ = next(iter(data.train.batches(2)))
    settings = TRAINING.model_copy(update={"engine": engine})
    plan = engine_plan(network, images, settings=StepSettings.of(settings), batch_size=16)
    assert plan is not None
    expected = finetune(stock, data.train, settings=TRAINING, epochs=1, seed=1)
    found = finetune(network, data.train, settings=settings, epochs=1, seed=1, plan=plan)
    assert found.losses == pytest.approx(expected.losses, rel=tolerance, abs=0)
    for own, other in zip(weights(network), weights(stock), strict=True):
        torch.testing.assert_close(own, other, rtol=tolerance, atol=tolerance)


def test_training_learns_and_says_what_it_did(data: DataParts) -> None:
    network = fresh()
    shares: list[float] = []
    trace = finetune(
        network, data.train, settings=TRAINING, epochs=3, seed=1, on_progress=shares.append
    )
    steps = 3 * (len(data.train) // 16)
    assert len(trace.losses) == steps
    assert trace.images == 16 * steps
    assert trace.step_seconds > 0
    assert shares == [(step + 1) / steps for step in range(steps)]
    assert network.training
    assert evaluate(network, data.validation, batch_size=64).accuracy > 0.7


def test_only_what_the_scheme_trains_is_trained(data: DataParts) -> None:
    network = fresh("last")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    finetune(network, data.train, settings=TRAINING, epochs=0.5, seed=1)
    changed = {
        n for n, tensor in network.state_dict().items() if not torch.equal(tensor, before[n])
    }
    assert changed == {"head.weight", "head.bias"}


def test_every_step_is_canonical_and_has_a_full_batch(
    data: DataParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def counted(*arguments: object, settings: StepSettings) -> Tensor:
        batches = list(arguments[3])  # type: ignore[call-overload]
        sizes.extend(len(images) for images, _ in batches)
        return training_step(*arguments[:3], batches, settings=settings)  # type: ignore[arg-type]

    monkeypatch.setattr("dse.finetune.loop.training_step", counted)
    assert len(data.train) % 16
    finetune(fresh(), data.train, settings=TRAINING, epochs=2, seed=1)
    assert sizes == [16] * (2 * (len(data.train) // 16))


def test_the_same_seed_gives_the_same_network_and_another_one_another(data: DataParts) -> None:
    def trained(seed: int) -> list[Tensor]:
        network = nn.Sequential(fresh(), nn.Dropout(0.5))
        finetune(network, data.train, settings=TRAINING, epochs=0.5, seed=seed)
        torch.rand(3)  # what others draw in between doesn't matter
        return weights(network)

    first, second, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])


def test_torchs_random_state_is_left_as_it_was(data: DataParts) -> None:
    network = fresh()
    state = torch.random.get_rng_state()
    finetune(network, data.train, settings=TRAINING, epochs=0.2, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(("epochs", "steps"), [(0.001, 1), (0.5, 8), (1.0, 17)])
def test_part_of_an_epoch_is_rounded_to_steps(data: DataParts, epochs: float, steps: int) -> None:
    assert len(data.train) // 16 == 17
    trace = finetune(fresh("last"), data.train, settings=TRAINING, epochs=epochs, seed=1)
    assert len(trace.losses) == steps


def test_too_few_images_for_one_batch_are_refused(data: DataParts) -> None:
    settings = TRAINING.model_copy(update={"batch_size": 4096})
    with pytest.raises(TrainingError, match=r"fewer than a batch of 4096: lower"):
        finetune(fresh(), data.train, settings=settings, epochs=1, seed=1)


def test_a_loss_that_is_not_finite_names_step_and_learning_rate(data: DataParts) -> None:
    settings = TRAINING.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(
        TrainingError, match=r"the loss is (nan|inf) at step (\d+) of 17, at .* 1e\+30"
    ) as caught:
        finetune(fresh(), data.train, settings=settings, epochs=1, seed=1)
    step = int(str(caught.value).split(" of 17")[0].split()[-1])
    assert caught.value.images_trained == step * settings.batch_size


def test_a_batch_too_small_for_batch_norm_is_refused(data: DataParts) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 12), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    settings = TRAINING.model_copy(update={"batch_size": 1})
    with pytest.raises(TrainingError, match=r"single value per channel: raise training.batch_size"):
        finetune(network, data.train, settings=settings, epochs=1, seed=1)


def test_ctrl_c_ends_a_training_and_puts_things_back(data: DataParts) -> None:
    def interrupt(share: float) -> None:
        if share > 0.3:
            raise KeyboardInterrupt

    network = fresh()
    state = torch.random.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        finetune(network, data.train, settings=TRAINING, epochs=1, seed=1, on_progress=interrupt)
    assert torch.equal(state, torch.random.get_rng_state())


def test_augmentation_reaches_the_training_alone(data: DataParts) -> None:
    part: Part = replace(data.train, augment="crop-flip")
    plain = finetune(fresh(), data.train, settings=TRAINING, epochs=0.2, seed=1)
    varied = finetune(fresh(), part, settings=TRAINING, epochs=0.2, seed=1)
    assert plain.losses != varied.losses
    assert evaluate(fresh(), part, batch_size=64) == evaluate(fresh(), data.train, batch_size=64)


@given(steps=st.integers(1, 500), peak=st.floats(1e-6, 10))
def test_the_learning_rate_goes_through_one_cycle(steps: int, peak: float) -> None:
    rates = [learning_rate_at(step, steps=steps, peak=peak) for step in range(steps)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(peak)
    assert all(rate > 0 for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert steps < 10 or rates[-1] < 0.1 * peak


@given(st.lists(st.one_of(st.integers(), st.text()), max_size=4))
def test_seeds_fit_everywhere(parts: list[int | str]) -> None:
    assert 0 <= derived_seed(*parts) < 2**32


def test_seeds_never_change() -> None:
    assert derived_seed(0, "epoch", 1) == 3557919521
    assert derived_seed(0, "epoch", 2) != derived_seed(0, "epoch", 1)
