"""Pretraining, its cache, and the network a study starts from."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dse.config import DataConfig, NetworkConfig, Study, TrainingConfig
from dse.errors import NetworkError, RunError, TrainingError
from dse.finetune.pretrain import pretrained, starting_network
from support.small_study import pretraining_study, small_study


class Messages(list[str]):
    """Collects the messages, and the shares of the pretraining that were reported."""

    def __init__(self) -> None:
        super().__init__()
        self.shares: list[float] = []


def start(study: Study, cache: Path) -> tuple[torch.nn.Module, Messages]:
    messages = Messages()
    network = pretrained(
        study,
        classes=5,
        cache=cache,
        on_progress=messages.shares.append,
        on_message=messages.append,
    )
    return network, messages


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the weights of the plain study."""
    cache = tmp_path_factory.mktemp("cache")
    _, messages = start(pretraining_study(), cache)
    assert messages.shares[-1] == 1
    return cache


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    tensors = second.state_dict()
    return all(torch.equal(tensor, tensors[name]) for name, tensor in first.state_dict().items())


def test_pretraining_is_done_once(filled: Path, tmp_path: Path) -> None:
    taken, messages = start(pretraining_study(), filled)
    assert not messages
    assert not messages.shares
    anew, messages = start(pretraining_study(), tmp_path)
    assert "pretrains on 604 images of 0, 1, 2, 3, 4" in messages[0]
    assert "% on the 297 validation images" in messages[1]
    assert same(taken, anew)


def test_the_output_layer_is_new_and_the_rest_has_learned(filled: Path) -> None:
    network, _ = start(pretraining_study(), filled)
    (path,) = filled.glob("*.safetensors")
    assert path.name.startswith("pretrained-")
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["digest"] in path.name
        assert torch.equal(file.get_tensor("stem.0.weight"), network.state_dict()["stem.0.weight"])
        assert not torch.equal(file.get_tensor("head.weight"), network.state_dict()["head.weight"])


def test_another_study_pretrains_another_network(filled: Path) -> None:
    study = pretraining_study()
    others = [
        pretraining_study(epochs=3),
        pretraining_study(learning_rate=0.2),
        pretraining_study(labels=("0", "1", "2", "3")),
        study.model_copy(update={"seed": 1}),
        study.model_copy(update={"data": study.data.model_copy(update={"image_size": 10})}),
        study.model_copy(
            update={"network": study.network.model_copy(update={"options": {"width": 8}})}
        ),
        study.model_copy(
            update={"training": TrainingConfig(memory_format="channels-last", threads=1)}
        ),
    ]
    for other in others:
        before = len(list(filled.glob("*")))
        start(other, filled)
        assert len(list(filled.glob("*"))) == before + 1


def test_what_leaves_the_weights_alone_leaves_them_in_the_cache(filled: Path) -> None:
    training = TrainingConfig(scheme="last", batch_size=4, learning_rate=1.0, optimizer="adam")
    _, messages = start(pretraining_study().model_copy(update={"training": training}), filled)
    assert not messages


@pytest.mark.parametrize("damage", ["empty", "torn", "flipped", "other tensors"])
def test_a_damaged_file_is_named_and_made_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    study = pretraining_study(epochs=1)
    whole, _ = start(study, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    content = path.read_bytes()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "torn":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        other, _ = start(
            study.model_copy(
                update={"network": study.network.model_copy(update={"options": {"width": 8}})}
            ),
            tmp_path / "other",
        )
        assert other is not None
        (another,) = (tmp_path / "other").glob("*")
        path.write_bytes(another.read_bytes())
    made, _ = start(study, tmp_path)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert str(path) in warning
    assert warning.endswith(": the weights are trained anew")
    taken, messages = start(study, tmp_path)
    assert not messages
    assert same(whole, made)
    assert same(whole, taken)


def test_an_interrupted_pretraining_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(_share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrained(pretraining_study(), classes=5, cache=tmp_path, on_progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_is_named_with_the_fix(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(RunError, match=r"file .*set DSE_CACHE to a folder"):
        start(pretraining_study(epochs=1), blocked)


def test_a_diverging_pretraining_says_where_its_learning_rate_is(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"^network\.pretrain: .*lower the learning rate"):
        start(pretraining_study(learning_rate=1e6), tmp_path)


def test_a_network_without_pretraining_starts_from_the_studys_seed() -> None:
    study = small_study()
    state = torch.random.get_rng_state()
    first = starting_network(study, classes=3)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.rand(3)
    assert same(first, starting_network(study, classes=3))
    assert not same(first, starting_network(study.model_copy(update={"seed": 1}), classes=3))


def test_a_network_with_pretraining_starts_from_the_cache(filled: Path) -> None:
    network = starting_network(pretraining_study(), classes=5, cache=filled)
    assert same(network, start(pretraining_study(), filled)[0])


def test_a_network_from_a_file_gets_the_targets_outputs(filled: Path) -> None:
    (path, *_) = sorted(filled.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    network = NetworkConfig(
        name="support.small_study:small_network", options={"width": 16}, weights=str(path)
    )
    built = starting_network(small_study(network=network), classes=3)
    assert built.get_parameter("head.weight").shape == (3, 16)


def test_a_study_without_pretraining_has_nothing_to_pretrain(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"network\.weights"):
        start(small_study(data=DataConfig(name="digits", image_size=12)), tmp_path)
