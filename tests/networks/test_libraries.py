"""Networks of timm and transformers, by their usual names, without a network connection."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dse.errors import NetworkError
from dse.networks.build import build_network
from dse.networks.examples import example_input
from dse.networks.library import Wanted, find_library
from dse.networks.logits import main_logits
from dse.networks.transformers_library import described_by

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

VIT = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 16,
    "patch_size": 8,
}
BERT = {
    "model_type": "bert",
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_args: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    return written(tmp_path / "my vit", VIT)


def written(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def written_labels(folder: Path, count: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(one): f"label {one}" for one in range(count)}
    (folder / "config.json").write_text(json.dumps(config))


def test_timm_builds_a_network_with_options_and_a_tag() -> None:
    network = build_network("timm:test_vit.r160_in1k", classes=5, options={"img_size": 32})
    assert network(example_input(2, 32)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:test_vitt", r"timm has no classifier 'test_vitt', did you mean 'test_vit'"),
        ("timm:test_vit.r160", r"timm has no weights 'r160' of test_vit, did you mean 'r160_in1k'"),
    ],
)
def test_a_wrong_name_of_timm_is_one_line(name: str, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        build_network(name, classes=2)


@pytest.mark.parametrize("option", ["pretrained", "checkpoint_path", "num_classes"])
def test_what_the_study_sets_is_no_option_of_timm(option: str) -> None:
    with pytest.raises(NetworkError, match=f"the option '{option}' is set by the study"):
        build_network("timm:test_vit", classes=2, options={option: True})


def test_timm_weights_without_a_network_are_one_line() -> None:
    with pytest.raises(NetworkError, match="of timm:test_vit can't be downloaded"):
        build_network("timm:test_vit", classes=2, weights="default")
    with pytest.raises(NetworkError, match=r"weights 'IMAGENET' aren't available.*use 'default'"):
        build_network("timm:test_vit", classes=2, weights="IMAGENET")


def test_a_dry_run_says_that_weights_will_be_downloaded() -> None:
    library = find_library("timm:test_vit")
    assert library is not None
    wanted = Wanted(
        title="timm:test_vit", name="test_vit", classes=2, weights="default", options={}
    )
    assert list(library.check_weights(wanted)) == [
        "weights 'default' will be downloaded (timm/test_vit.r160_in1k)"
    ]


def test_a_file_of_timm_weights_with_another_number_of_classes(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    source = build_network("timm:test_vit", classes=9, options={"img_size": 32})
    averaged = {f"module.{name}": one.half() for name, one in source.state_dict().items()}
    torch.save({"epoch": 3, "state_dict_ema": averaged, "args": {"lr": 0.1}}, file)
    lines: list[str] = []
    built = build_network(
        "timm:test_vit",
        classes=4,
        options={"img_size": 32},
        weights=str(file),
        on_message=lines.append,
    )
    taken = built.state_dict()["blocks.0.mlp.fc1.weight"]
    assert torch.equal(taken, source.state_dict()["blocks.0.mlp.fc1.weight"].half().float())
    assert built(example_input(1, 32)).shape == (1, 4)
    assert "2 left new (head.weight, head.bias)" in lines[0]


def test_transformers_builds_an_image_classifier_from_a_folder(vit: Path) -> None:
    network = build_network("hf:my vit", classes=3, search_path=vit.parent)
    assert network.training
    assert main_logits(network(example_input(2, 16))).shape == (2, 3)


def test_transformers_builds_a_text_classifier() -> None:
    network = build_network("hf:any", classes=3, options={"config": BERT})
    tokens = torch.zeros(2, 12, dtype=torch.int64)
    assert main_logits(network(tokens)).shape == (2, 3)


def test_options_change_the_configuration(vit: Path) -> None:
    network = build_network(f"hf:{vit}", classes=3, options={"hidden_size": 32})
    assert network.get_parameter("classifier.weight").shape == (3, 32)
    with pytest.raises(NetworkError, match="has no 'hidden_sise', did you mean 'hidden_size'"):
        build_network(f"hf:{vit}", classes=3, options={"hidden_sise": 32})
    with pytest.raises(NetworkError, match=r"its configuration is invalid: .*hidden_size"):
        build_network(f"hf:{vit}", classes=3, options={"hidden_size": "wide"})


def test_weights_of_a_folder_are_loaded_and_the_head_is_new(vit: Path) -> None:
    written_labels(vit, 7)
    source = build_network(f"hf:{vit}", classes=7)
    save_file(source.state_dict(), vit / "model.safetensors", metadata={"format": "pt"})
    lines: list[str] = []
    network = build_network(f"hf:{vit}", classes=3, weights="default", on_message=lines.append)
    assert "have 7 outputs: the output layer for 3 is new" in lines[0]
    own = {key: one for key, one in network.state_dict().items() if "classifier" not in key}
    assert len(own) > 10
    assert all(torch.equal(one, source.state_dict()[key]) for key, one in own.items())
    assert main_logits(network(example_input(1, 16))).shape == (1, 3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "its config.json can't be read"),
        ({"model_type": "sam"}, "no image or text classifier of the type 'sam'"),
        (
            {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}},
            "code of its repository, which is never run",
        ),
    ],
)
def test_a_folder_that_is_no_classifier_is_one_line(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    folder = written(tmp_path / "other", config)
    with pytest.raises(NetworkError, match=message):
        build_network(f"hf:{folder}", classes=2)


def test_a_name_of_the_hub_without_a_network_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="no such folder, and the hub's can't be read"):
        build_network("hf:google/never-cached", classes=2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NetworkError, match=r"empty has no config.json"):
        build_network(f"hf:{tmp_path / 'empty'}", classes=2)


def test_options_describe_the_network_without_its_folder(vit: Path) -> None:
    options = described_by(f"hf:{vit}", {"hidden_dropout_prob": 0.25}, folder=None)
    json.dumps(options)
    built = build_network("hf:elsewhere", classes=3, options=options)
    other = build_network(f"hf:{vit}", classes=3)
    assert {n: p.shape for n, p in built.named_parameters()} == {
        n: p.shape for n, p in other.named_parameters()
    }
    assert options["config"]["hidden_dropout_prob"] == 0.25


def test_torchvision_takes_the_word_default_too() -> None:
    library = find_library("torchvision:squeezenet1_1")
    assert library is not None
    wanted = Wanted(
        title="torchvision:squeezenet1_1",
        name="squeezenet1_1",
        classes=2,
        weights="default",
        options={},
    )
    assert all("will be downloaded" in line for line in library.check_weights(wanted))
