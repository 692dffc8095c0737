"""Recovery off the device: what it changes, what it leaves alone, and its files."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from dse.candidate import Candidate
from dse.config import RecoveryConfig, Study, load_study
from dse.data import load_data
from dse.engines.engine import study_plan
from dse.errors import ConfigError, TrainingError
from dse.finetune.imitation import imitation_loss, outputs_at
from dse.finetune.pretrain import pretrained
from dse.finetune.proxy import Proxy
from dse.finetune.pruner import Pruner
from dse.finetune.recovery import Recovery, recovery_of
from dse.networks.examples import example_input
from dse.pruning.groups import find_groups
from support.small_study import pretraining_study, small_study

SLIM = Candidate(channels={"stem.0": 4, "first": 6})


def recovering(**recipe: object) -> Study:
    recovery = RecoveryConfig.model_validate({"epochs": 2.0, "batch_size": 16, **recipe})
    return pretraining_study().model_copy(update={"recovery": recovery})


def proxy_of(study: Study, cache: Path) -> Proxy:
    data = load_data(study.data, seed=study.seed)
    network = pretrained(study, classes=data.classes, cache=cache)
    groups = find_groups(network, example_input(1, study.data.image_size))
    recovery = recovery_of(study, groups=groups, cache=cache)
    pruner = Pruner(study=study, network=network, data=data, groups=groups, recovery=recovery)
    return Proxy(pruner=pruner, make_plan=study_plan)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def proxy(cache: Path) -> Proxy:
    return proxy_of(recovering(), cache)


def accuracy_on_source(recovery: Recovery, network: torch.nn.Module) -> float:
    images, labels = next(iter(recovery.data.validation.batches(1000)))
    with torch.no_grad():
        return float((network(images).argmax(1) == labels).float().mean())


def recovered_files(cache: Path) -> list[Path]:
    return sorted(cache.glob("recovered-*.safetensors"))


def test_a_pruned_network_takes_over_all_but_the_output_layer(proxy: Proxy) -> None:
    assert proxy.pruner.recovery is not None
    plain = proxy_of(pretraining_study(), proxy.pruner.recovery.cache or Path())
    before, _ = plain.train(SLIM, fidelity="calibrate")
    after, _ = proxy.train(SLIM, fidelity="calibrate")
    one, other = before.state_dict(), after.state_dict()
    assert [t.shape for t in one.values()] == [t.shape for t in other.values()]
    torch.testing.assert_close(one["head.weight"], other["head.weight"])
    for name in ("stem.0.weight", "first.weight", "second.weight", "norm.bias"):
        assert not torch.allclose(one[name], other[name]), name


def test_it_learns_the_source_again(proxy: Proxy, cache: Path) -> None:
    recovery = proxy.pruner.recovery
    assert recovery is not None
    proxy.evaluate(SLIM, fidelity="calibrate", seed_index=5)
    newest = max(recovered_files(cache), key=lambda path: path.stat().st_mtime)
    from safetensors.torch import load_file  # noqa: PLC0415  # one test reads the file itself

    from dse.pruning.surgery import prune  # noqa: PLC0415

    kept = SLIM.kept(proxy.pruner.groups)
    network = prune(
        recovery.network, groups=proxy.pruner.groups, kept=kept, importance=proxy.importance
    ).eval()
    cut = accuracy_on_source(recovery, network)
    network.load_state_dict(load_file(newest))
    assert accuracy_on_source(recovery, network) > cut + 0.1


def test_imitation_comes_near_the_unpruned_network(cache: Path) -> None:
    trained = Candidate(channels={"first": 6})
    plain = proxy_of(pretraining_study(), cache)
    taught = proxy_of(recovering(aim="imitate", epochs=4.0), cache)
    recovery = taught.pruner.recovery
    assert recovery is not None
    images, _ = next(iter(recovery.data.validation.batches(200)))
    losses = []
    for proxy in (plain, taught):
        pruned, _ = proxy.train(trained, fidelity="calibrate")
        with torch.no_grad():
            whole = proxy.pruner.network.eval()
            own, given = (outputs_at(n, ["second"], images) for n in (pruned, whole))
        losses.append(float(imitation_loss(own, given)))
    assert losses[1] < losses[0] / 2


def test_the_unpruned_network_is_not_recovered(proxy: Proxy, cache: Path) -> None:
    before = recovered_files(cache)
    proxy.evaluate(Candidate(), fidelity="calibrate")
    assert recovered_files(cache) == before


def test_each_candidate_and_seed_recovers_once(proxy: Proxy, tmp_path: Path, cache: Path) -> None:
    counts = []
    for candidate, seed_index in ((SLIM, 0), (SLIM, 0), (SLIM, 1), (Candidate(), 0)):
        proxy.evaluate(candidate, fidelity="calibrate", seed_index=seed_index)
        counts.append(len(recovered_files(cache)))
    assert counts[0] == counts[1]
    anew = proxy_of(recovering(), tmp_path)
    first = anew.evaluate(SLIM, fidelity="short").accuracy
    assert len(recovered_files(tmp_path)) == 1
    assert anew.evaluate(SLIM, fidelity="short").accuracy == first
    assert proxy.evaluate(SLIM, fidelity="short").accuracy == first
    anew.evaluate(SLIM, fidelity="short", seed_index=1)
    assert len(recovered_files(tmp_path)) == 2


def test_a_diverging_recovery_is_named(cache: Path) -> None:
    with pytest.raises(TrainingError, match="recovery: the loss is nan"):
        proxy_of(recovering(learning_rate=1e6), cache).evaluate(SLIM, fidelity="calibrate")


def test_a_study_without_recovery_has_none() -> None:
    assert recovery_of(small_study(), groups=()) is None


def test_other_images_can_be_named(tmp_path: Path) -> None:
    study = small_study(
        recovery=RecoveryConfig(data="digits", labels=("0", "1", "2"), batch_size=16, epochs=1)
    )
    recovery = recovery_of(study, groups=(), cache=tmp_path)
    assert recovery is not None
    assert recovery.data.labels == ("0", "1", "2")
    assert recovery.network(torch.zeros(1, 3, 12, 12)).shape == (1, 3)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"root": "x"}, "needs recovery.data"),
        ({"data": "folder"}, "reads the folder that root names"),
        ({"data": "nothing"}, "is not a data set"),
    ],
)
def test_wrong_tables_are_refused(table: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RecoveryConfig.model_validate(table)


def test_a_study_must_say_what_to_recover_on() -> None:
    with pytest.raises(ConfigError, match=r"recovery\.data is missing"):
        load_study("cifar10_mobilenet_v2", overrides=["recovery.epochs=2"])
    study = load_study("digits", overrides=["recovery.epochs=2"])
    assert study.recovery == RecoveryConfig(epochs=2)
    assert study.meaning_digest != load_study("digits").meaning_digest
