from typing import Any

import pytest
import torchvision

from dse.networks.build import build_network
from dse.trust.builders import objection_to_network


def test_every_classifier_of_torchvision_may_be_built() -> None:
    for name in torchvision.models.list_models(module=torchvision.models):
        assert objection_to_network(f"torchvision:{name}", {}) is None


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenet_v2", {"width_mult": 0.35, "dropout": 0.0, "round_nearest": 4}),
        ("mobilenet_v2", {"inverted_residual_setting": [[1, 16, 1, 1], [6, 24, 2, 2]]}),
        ("vit_b_16", {"image_size": 32, "num_layers": 2}),
        ("inception_v3", {"transform_input": True}),
        ("resnet18", {"zero_init_residual": True}),
    ],
)
def test_plain_options_of_a_constructor_may_be_given(name: str, options: dict[str, Any]) -> None:
    assert objection_to_network(f"torchvision:{name}", options) is None


def test_what_may_be_built_can_be_built() -> None:
    options = {"width_mult": 0.35, "inverted_residual_setting": [[1, 16, 1, 1]]}
    assert objection_to_network("torchvision:mobilenet_v2", options) is None
    assert build_network("torchvision:mobilenet_v2", classes=2, options=options) is not None


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("os:system", {"command": "true"}, "runs code of its own"),
        ("torchvision.models:resnet18", {}, "runs code of its own"),
        ("torchvision:nothing", {}, "isn't a classifier"),
        ("torchvision:fcn_resnet50", {}, "isn't a classifier"),
        ("torchvision:quantized_resnet18", {}, "isn't a classifier"),
        ("torchvision:__class__", {}, "isn't a classifier"),
        ("torchvision:resnet18", {"weights": "DEFAULT"}, "no option 'weights'"),
        ("torchvision:resnet18", {"weights_backbone": "DEFAULT"}, "no option 'weights_backbone'"),
        ("torchvision:resnet18", {"pretrained": True}, "no option 'pretrained'"),
        ("torchvision:resnet18", {"anything": 1}, "no option 'anything'"),
        ("torchvision:resnet18", {"kwargs": {"weights": 1}}, "no option 'kwargs'"),
        ("torchvision:resnet18", {"self": 1}, "no option 'self'"),
        ("torchvision:resnet18", {"norm_layer": {"a": 1}}, "a plain value"),
        ("torchvision:resnet18", {"layers": [1] * 1000}, "a plain value"),
        ("torchvision:resnet18", {"layers": [[[[[[[[1]]]]]]]]}, "a plain value"),
        ("torchvision:resnet18", {"width_per_group": 10**9}, "a plain value"),
        ("torchvision:mobilenet_v2", {"width_mult": float("nan")}, "a plain value"),
    ],
)
def test_all_else_is_objected_to(name: str, options: dict[str, Any], reason: str) -> None:
    objection = objection_to_network(name, options)
    assert objection is not None
    assert reason in objection
    assert "\n" not in objection
