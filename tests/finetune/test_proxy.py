"""The proxy, its fidelities, and what its results may depend on."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dse.candidate import Candidate, with_recipe
from dse.config import NetworkConfig
from dse.data import load_data
from dse.errors import CandidateError, RunError, TrainingError
from dse.finetune import settled
from dse.finetune.evaluation import Evaluation
from dse.finetune.loop import FORWARD_BATCH
from dse.finetune.proxy import Proxy
from dse.finetune.rung import Rung
from dse.names import Fidelity
from dse.networks.devices import threads_set
from dse.results.balance import ClassImages
from support.small_study import small_proxy, small_study

HALF = Candidate(channels={"stem.0": 8, "first": 16})
SLIM = Candidate(channels={"first": 4})
TIMES = {"wall_seconds", "step_seconds"}


@pytest.fixture(scope="module")
def proxy() -> Proxy:
    return small_proxy(small_study())


def result(evaluation: Evaluation) -> dict[str, object]:
    """All but the times, which are never the same."""
    return {key: value for key, value in evaluation.to_json().items() if key not in TIMES}


def test_an_evaluation_says_what_was_done(proxy: Proxy) -> None:
    evaluation = proxy.evaluate(HALF, fidelity="short", read_validation=True)
    train, batch_size = len(proxy.pruner.data.train), proxy.study.training.batch_size
    assert evaluation.candidate_digest == HALF.digest
    assert evaluation.fidelity == "short"
    assert 0 < evaluation.accuracy <= 1
    assert evaluation.validation_accuracy is not None
    assert 0 < evaluation.validation_accuracy <= 1
    assert evaluation.images_trained == round(0.5 * (train // batch_size)) * batch_size
    statistics = 4 * FORWARD_BATCH + 2 * settled._FEWEST  # recomputed, then chosen, after training
    scored = len(proxy.pruner.data.selection) + len(proxy.pruner.data.validation)
    assert evaluation.images_forward == statistics + scored
    assert evaluation.wall_seconds > evaluation.step_seconds > 0


def test_the_validation_part_is_read_only_on_request(proxy: Proxy) -> None:
    evaluation = proxy.evaluate(HALF, fidelity="calibrate")
    assert evaluation.validation_accuracy is None


def test_fidelities_train_for_their_epochs(proxy: Proxy) -> None:
    images = {
        fidelity: proxy.evaluate(SLIM, fidelity=fidelity).images_trained
        for fidelity in ("calibrate", "short", "full")
    }
    steps = len(proxy.pruner.data.train) // 16
    assert images == {"calibrate": 0, "short": 16 * round(steps / 2), "full": 16 * 2 * steps}


def test_progress_is_reported_up_to_its_end(proxy: Proxy) -> None:
    shares: list[float] = []
    proxy.evaluate(SLIM, fidelity="short", on_progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_network_that_is_broken_by_its_last_step_says_what_it_took() -> None:
    study = small_study()
    last = study.model_copy(
        update={
            "training": study.training.model_copy(update={"learning_rate": 1e38}),
            "proxy": study.proxy.model_copy(update={"short_epochs": 1e-6}),  # one step
        }
    )
    with pytest.raises(TrainingError, match=r"part is (nan|inf)") as caught:
        small_proxy(last).evaluate(SLIM, fidelity="short")
    assert caught.value.images_trained == study.training.batch_size


def test_full_training_reaches_more_than_chance(proxy: Proxy) -> None:
    assert proxy.evaluate(Candidate(), fidelity="full").accuracy > 0.6


def test_a_trained_network_is_smaller_in_eval_mode_and_scores_as_reported(proxy: Proxy) -> None:
    network, evaluation = proxy.train(HALF, fidelity="short", read_validation=True)
    assert not any(module.training for module in network.modules())
    assert network.get_parameter("first.weight").shape == (16, 8, 3, 3)
    validation = proxy.pruner.data.validation
    images, labels = next(iter(validation.batches(len(validation))))
    with torch.no_grad():
        correct = float((network(images).argmax(1) == labels).float().mean())
    assert evaluation.validation_accuracy == pytest.approx(correct)


def test_the_unpruned_network_is_never_changed(proxy: Proxy) -> None:
    before = {name: tensor.clone() for name, tensor in proxy.pruner.network.state_dict().items()}
    network, _ = proxy.train(Candidate(), fidelity="short")
    assert network is not proxy.pruner.network
    for name, tensor in proxy.pruner.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_result_depends_on_nothing_that_came_before(proxy: Proxy) -> None:
    first = result(proxy.evaluate(HALF, fidelity="short"))
    proxy.evaluate(SLIM, fidelity="short")
    torch.rand(5)
    assert result(proxy.evaluate(HALF, fidelity="short")) == first
    assert result(small_proxy(small_study()).evaluate(HALF, fidelity="short")) == first


def test_another_process_finds_the_same(proxy: Proxy) -> None:
    tests = Path(__file__).parents[1]
    script = (
        f"import sys, json; sys.path.insert(0, {str(tests)!r})\n"
        "from support.small_study import small_proxy, small_study\n"
        "from dse.candidate import Candidate\n"
        f"candidate = Candidate.from_json({HALF.canonical_json()!r})\n"
        "proxy = small_proxy(small_study())\n"
        "print(json.dumps(proxy.evaluate(candidate, fidelity='short').to_json()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    other = Evaluation.from_json(json.loads(done.stdout))
    assert result(other) == result(proxy.evaluate(HALF, fidelity="short"))


def test_each_seed_index_study_seed_fidelity_and_candidate_has_its_own_seed(proxy: Proxy) -> None:
    again = proxy.under(small_study(seed=1))
    fidelities: tuple[Fidelity, ...] = ("calibrate", "short", "full")
    seeds = [proxy.evaluate(SLIM, fidelity=fidelity).seed for fidelity in fidelities]
    seeds += [
        proxy.evaluate(SLIM, fidelity="calibrate", seed_index=1).seed,
        proxy.evaluate(HALF, fidelity="calibrate").seed,
        again.evaluate(SLIM, fidelity="calibrate").seed,
    ]
    assert len(set(seeds)) == len(seeds)


def test_seeds_give_different_trainings(proxy: Proxy) -> None:
    losses = {proxy.evaluate(SLIM, fidelity="short", seed_index=index).loss for index in range(3)}
    assert len(losses) == 3


def test_the_most_important_channels_stay(proxy: Proxy) -> None:
    network, _ = proxy.train(SLIM, fidelity="calibrate")
    best = sorted(proxy.importance["first"].argsort()[-4:].tolist())
    expected = proxy.pruner.network.get_parameter("first.weight")[best]
    assert torch.equal(network.get_parameter("first.weight"), expected)


def test_what_a_candidate_sets_takes_the_place_of_the_studys(proxy: Proxy) -> None:
    candidate = Candidate(scheme="last", batch_size=8, optimizer="adam", image_size=12)
    network, evaluation = proxy.train(candidate, fidelity="short")
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"head.weight", "head.bias"}
    assert evaluation.images_trained == 8 * round(0.5 * (len(proxy.pruner.data.train) // 8))


def test_a_candidate_of_another_image_size_trains_on_such_images(proxy: Proxy) -> None:
    own = with_recipe(proxy.study, Candidate(image_size=20))
    parts = proxy.parts(own.data)
    assert parts.train.images.shape[-2:] == (20, 20)
    assert proxy.parts(own.data) is parts
    assert proxy.parts(proxy.study.data) is proxy.pruner.data
    larger = proxy.evaluate(Candidate(image_size=20), fidelity="calibrate")
    study = proxy.study.model_copy(update={"data": own.data})
    data = load_data(own.data, seed=study.seed)
    alone = replace(proxy, pruner=replace(proxy.pruner, study=study, data=data))
    # Another digest seeds other shuffles, but statistics are of nearly all images either way.
    assert larger.loss == pytest.approx(
        alone.evaluate(Candidate(), fidelity="calibrate").loss, rel=0.05
    )


def test_each_criterion_ranks_for_the_candidates_that_ask_for_it(proxy: Proxy) -> None:
    by_study, _ = proxy.train(SLIM, fidelity="calibrate")
    again, _ = proxy.train(
        SLIM.model_copy(update={"importance": proxy.study.proxy.importance}), fidelity="calibrate"
    )
    weight = by_study.get_parameter("first.weight")
    assert torch.equal(again.get_parameter("first.weight"), weight)
    other, _ = proxy.train(SLIM.model_copy(update={"importance": "random"}), fidelity="calibrate")
    assert not torch.equal(other.get_parameter("first.weight"), weight)


def test_a_candidate_may_ask_for_least_squares(proxy: Proxy) -> None:
    plain, _ = proxy.train(SLIM, fidelity="calibrate")
    fitted, _ = proxy.train(SLIM.model_copy(update={"reconstruct": True}), fidelity="calibrate")
    same = [
        torch.equal(mine, theirs)
        for mine, theirs in zip(plain.parameters(), fitted.parameters(), strict=True)
    ]
    assert not all(same)


def test_an_unknown_group_is_refused(proxy: Proxy) -> None:
    with pytest.raises(CandidateError, match="no such channel group"):
        proxy.evaluate(Candidate(channels={"nowhere": 1}), fidelity="short")


def test_channels_last_and_frozen_statistics_train_too() -> None:
    study = small_study()
    training = study.training.model_copy(
        update={"memory_format": "channels-last", "scheme": "last"}
    )
    proxy = small_proxy(study.model_copy(update={"training": training}))
    network, evaluation = proxy.train(HALF, fidelity="short")
    weight = network.get_parameter("first.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert evaluation.images_forward == 4 * FORWARD_BATCH + len(proxy.pruner.data.selection)


def test_the_number_of_threads_is_set_and_put_back() -> None:
    before = torch.get_num_threads()

    def interrupt() -> None:
        with threads_set(before + 1):
            assert torch.get_num_threads() == before + 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert torch.get_num_threads() == before
    with threads_set(0):
        assert torch.get_num_threads() == before


def test_an_evaluation_survives_json(proxy: Proxy) -> None:
    for read_validation in (False, True):
        evaluation = proxy.evaluate(SLIM, fidelity="short", read_validation=read_validation)
        text = json.dumps(evaluation.to_json())
        assert Evaluation.from_json(json.loads(text)) == evaluation


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"accuracy": 1.5}, "accuracy"),
        ({"accuracy": float("nan")}, "accuracy"),
        ({"fidelity": "long"}, "fidelity"),
        ({"seed": "7"}, "seed"),
        ({"colour": 1}, "colour"),
        ({"images_trained": -1}, "images_trained"),
    ],
)
def test_a_broken_evaluation_is_refused_by_field(
    proxy: Proxy, change: dict[str, object], place: str
) -> None:
    good = proxy.evaluate(SLIM, fidelity="calibrate").to_json()
    with pytest.raises(RunError, match=f"ledger: {place}: "):
        Evaluation.from_json({**good, **change}, source="ledger")
    with pytest.raises(RunError, match="candidate_digest"):
        Evaluation.from_json({})


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
def test_channels_may_be_judged_by_the_training_images(criterion: str) -> None:
    study = small_study()
    read = study.model_copy(
        update={"proxy": study.proxy.model_copy(update={"importance": criterion})}
    )
    one, other = small_proxy(read), small_proxy(read)
    for name, scores in one.importance.items():
        assert (scores == other.importance[name]).all()
    assert result(one.evaluate(HALF, fidelity="short")) == result(
        other.evaluate(HALF, fidelity="short")
    )


def test_layers_that_lost_inputs_may_be_fitted(proxy: Proxy) -> None:
    study = small_study()
    fitting = study.model_copy(
        update={"proxy": study.proxy.model_copy(update={"reconstruct": True})}
    )
    own = small_proxy(fitting)
    plain, fitted = (one.train(SLIM, fidelity="calibrate")[0] for one in (proxy, own))
    assert torch.equal(plain.get_parameter("first.weight"), fitted.get_parameter("first.weight"))
    assert not torch.equal(
        plain.get_parameter("second.weight"), fitted.get_parameter("second.weight")
    )
    assert own.evaluate(Candidate(), fidelity="calibrate").accuracy == pytest.approx(
        proxy.evaluate(Candidate(), fidelity="calibrate").accuracy
    )


def test_side_branches_are_trained_beside_pruned_blocks() -> None:
    proxy = small_proxy(small_study(network=NetworkConfig(name="support.networks:Blocks")))
    candidate = Candidate(channels={"second.0": 7, "second.3": 9}, scheme="lite-residual")
    network, evaluation = proxy.train(candidate, fidelity="full")
    branches = network.lite_residual
    assert list(branches) == ["second", "third"]
    assert branches["third"].conv.weight.shape == (9, 9, 3, 3)
    assert all(bool(branch.last_norm.weight.abs().sum() > 0) for branch in branches.values())
    frozen = proxy.train(candidate, fidelity="calibrate")[0]
    assert torch.equal(
        network.get_parameter("second.0.weight"), frozen.get_parameter("second.0.weight")
    )
    again = proxy.evaluate(candidate, fidelity="full")
    assert result(again) == result(evaluation)
    assert not hasattr(proxy.pruner.network, "lite_residual")


def test_every_metric_is_of_one_and_the_same_training(proxy: Proxy) -> None:
    found = {}
    for metric in ("accuracy", "balanced-accuracy", "macro-f1"):
        search = proxy.study.search.model_copy(update={"metric": metric})
        own = proxy.under(proxy.study.model_copy(update={"search": search}))
        found[metric] = own.evaluate(HALF, fidelity="short", read_validation=True)
    one = found["accuracy"]
    images = ClassImages.of_summary(proxy.pruner.data.summary)
    assert images is not None
    assert one.correct is not None
    assert one.validation_correct is not None
    data = proxy.pruner.data
    assert one.accuracy == sum(one.correct) / len(data.selection)
    assert one.validation_accuracy == sum(one.validation_correct) / len(data.validation)
    for other in found.values():
        assert (other.correct, other.validation_correct) == (one.correct, one.validation_correct)
    for part, evaluated in (("selection", one.correct), ("validation", one.validation_correct)):
        mean = np.mean(np.array(evaluated) / images.of(part))  # type: ignore[arg-type]
        balanced = found["balanced-accuracy"]
        shown = balanced.accuracy if part == "selection" else balanced.validation_accuracy
        assert shown == pytest.approx(mean)
    assert 0 < found["macro-f1"].accuracy != one.accuracy


def test_a_rung_is_judged_by_the_metric(proxy: Proxy) -> None:
    search = proxy.study.search.model_copy(update={"metric": "balanced-accuracy"})
    own = proxy.under(proxy.study.model_copy(update={"search": search}))
    seen: list[float] = []

    def judge(score: float) -> bool:
        seen.append(score)
        return False

    found = own.evaluate(HALF, fidelity="short", rung=Rung(0.5, judge))
    assert found.stopped
    assert found.correct is not None
    images = np.bincount(proxy.pruner.data.selection.labels.numpy())
    mean = np.mean(np.array(found.correct) / images)
    assert seen == [found.accuracy] == [found.rung_accuracy] == [pytest.approx(mean)]


def test_another_recipe_shares_data_and_network(proxy: Proxy) -> None:
    training = proxy.study.training.model_copy(update={"learning_rate": 1e-6})
    still = proxy.under(proxy.study.model_copy(update={"training": training}))
    assert still.pruner.data is proxy.pruner.data
    assert still.pruner.network is proxy.pruner.network
    learned = proxy.evaluate(Candidate(), fidelity="full").accuracy
    assert still.evaluate(Candidate(), fidelity="full").accuracy < learned
