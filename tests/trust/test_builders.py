from types import ModuleType
from typing import Any

import pytest
import torchvision

from dse.networks.build import build_network
from dse.trust.builders import objection_to_network


@pytest.mark.parametrize("place", [torchvision.models, torchvision.models.segmentation])
def test_every_network_of_torchvision_for_a_task_may_be_built(place: ModuleType) -> None:
    for name in torchvision.models.list_models(module=place):
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
        ("torchvision:nothing", {}, "neither a classifier nor"),
        ("torchvision:fasterrcnn_resnet50_fpn", {}, "neither a classifier nor"),
        ("torchvision:fcn_resnet50", {"weights_backbone": "DEFAULT"}, "no option"),
        ("torchvision:quantized_resnet18", {}, "neither a classifier nor"),
        ("torchvision:__class__", {}, "neither a classifier nor"),
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


VIT = {"model_type": "vit", "hidden_size": 16, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timm:test_vit", {"img_size": 32}),
        ("timm:test_vit.r160_in1k", {}),
        ("hf:any/thing", {"config": VIT}),
        ("hf:any/thing", {"config": {"model_type": "bert", "vocab_size": 250_002}}),
    ],
)
def test_plain_networks_of_timm_and_transformers_may_be_built(
    name: str, options: dict[str, Any]
) -> None:
    pytest.importorskip("timm")
    assert objection_to_network(name, options) is None


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("timm:hf-hub:evil/model", {}, "isn't a classifier of the installed timm"),
        ("timm:local-dir:/tmp/model", {}, "isn't a classifier of the installed timm"),
        ("timm:test_vit", {"pretrained": True}, "no option 'pretrained'"),
        ("timm:test_vit", {"checkpoint_path": "x.pth"}, "no option 'checkpoint_path'"),
        ("timm:test_vit", {"pretrained_cfg": {"file": "x"}}, "no option 'pretrained_cfg'"),
        ("timm:test_vit", {"embed_dim": 10**9}, "a plain value"),
        ("hf:evil/model", {}, "read from a folder or the hub"),
        ("hf:evil/model", {"config": "x"}, "read from a folder or the hub"),
        ("hf:evil/model", {"config": VIT, "trust_remote_code": True}, "'trust_remote_code'"),
        (
            "hf:evil/model",
            {"config": VIT, "attn_implementation": "evil/x"},
            "'attn_implementation'",
        ),
        ("hf:x", {"config": {**VIT, "auto_map": {"AutoConfig": "a.B"}}}, "no option 'auto_map'"),
        ("hf:x", {"config": {**VIT, "_attn_implementation": "evil/x"}}, "'_attn_implementation'"),
        ("hf:x", {"config": {**VIT, "quantization_config": {}}}, "'quantization_config'"),
        ("hf:x", {"config": {**VIT, "backbone": "evil/x"}}, "no option 'backbone'"),
        ("hf:x", {"config": {**VIT, "hidden_size": 10**9}}, "a plain value"),
        ("hf:x", {"config": {**VIT, "vision_config": {"a": 1}}}, "a plain value"),
        ("hf:x", {"config": {"model_type": "timm_wrapper"}}, "'timm_wrapper', which isn't known"),
        ("hf:x", {"config": {}}, "isn't known here"),
    ],
)
def test_what_timm_and_transformers_would_download_or_run_is_objected_to(
    name: str, options: dict[str, Any], reason: str
) -> None:
    pytest.importorskip("timm")
    objection = objection_to_network(name, options)
    assert objection is not None
    assert reason in objection


def test_known_types_are_types_of_transformers() -> None:
    pytest.importorskip("transformers")
    from transformers.models.auto import configuration_auto  # noqa: PLC0415

    from dse.trust.builders import _TRANSFORMERS_TYPES  # noqa: PLC0415

    assert set(configuration_auto.CONFIG_MAPPING_NAMES) >= _TRANSFORMERS_TYPES
