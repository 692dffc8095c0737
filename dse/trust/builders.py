"""Networks that an untrusted file may name: those of known libraries, with plain options."""

import importlib
import importlib.util
import inspect
import re
import typing
from collections.abc import Mapping
from typing import Any

import torchvision
from torch import nn

from dse.names import LITE_NETWORKS, library_of

TORCHVISION = "torchvision:"
_DOWNLOADING = ("weights", "weights_backbone", "pretrained", "pretrained_backbone")
_MOST_VALUES = 512
_DEEPEST = 6
_LARGEST = 65_536
_LARGEST_OF_TABLES = 1_000_000  # vocabularies of text networks

_TIMM_OPTIONS = frozenset({
        "act_layer", "base_width", "block_type", "cardinality", "class_token", "depth", "depths",
        "dims", "drop_block_rate", "drop_path_rate", "drop_rate", "dynamic_img_size", "embed_dim",
        "embed_dims", "global_pool", "head_dropout", "img_size", "in_chans", "init_values",
        "kernel_size", "key_dim", "layers", "mlp_ratio", "mlp_ratios", "no_embed_class",
        "norm_layer", "num_heads", "output_stride", "patch_size", "pos_drop_rate", "pos_embed",
        "proj_drop_rate", "qk_norm", "qkv_bias", "reg_tokens", "round_chs_fn", "stem_type",
        "stem_width", "strict_img_size", "window_size",
})  # fmt: skip
"""Shapes and rates. Not among them is what reads files, downloads, or names code."""

_TRANSFORMERS_TYPES = frozenset({
        "albert", "beit", "bert", "camembert", "convbert", "convnext", "convnextv2",
        "data2vec-text", "data2vec-vision", "deberta", "deberta-v2", "deit", "dinov2",
        "dinov2_with_registers", "distilbert", "efficientnet", "electra", "ernie", "fnet",
        "hiera", "ijepa", "levit", "mobilebert", "mobilenet_v1", "mobilenet_v2", "mobilevit",
        "mobilevitv2", "modernbert", "mpnet", "poolformer", "pvt", "pvt_v2", "regnet", "rembert",
        "resnet", "roberta", "roberta-prelayernorm", "roformer", "segformer", "squeezebert",
        "swiftformer", "swin", "swinv2", "vit", "vit_msn", "xlm-roberta",
})  # fmt: skip
"""Types whose networks are of transformers' own code alone."""

_LITE_OPTIONS = frozenset({"dropout_rate", "drop_connect_rate"})

_NOT_SHAPES = re.compile(
    r"^_|auto_map|backbone|timm|pretrained|name_or_path|quantiz|kernel_config|hub|revision|"
    r"implementation|remote|cache_dir|file|path$|dtype|torchscript",
    re.IGNORECASE,
)
"""Fields of a configuration that read files, download, or choose code."""


def objection_to_network(name: str, options: Mapping[str, Any]) -> str | None:
    """Return why a network may not be built for an untrusted file.

    Args:
        name: name of the network as in a study.
        options: options of the network's factory.

    Returns:
        The reason in one line; None for a classifier of torchvision, timm or transformers whose
        options are plain values that its constructor accepts, and that downloads and reads nothing.
    """
    match library_of(name):
        case "torchvision":
            return _objection_to_torchvision(name, options)
        case "timm":
            return _objection_to_timm(name, options)
        case "hf":
            return _objection_to_transformers(name, options)
        case "lite":
            return _objection_to_lite(name, options)
        case "export":
            return f"network {name!r} is read from a file of torch.export.save, which holds code"
        case _:
            return f"network {name!r} runs code of its own"


def _objection_to_torchvision(name: str, options: Mapping[str, Any]) -> str | None:
    builder_name = name.removeprefix(TORCHVISION)
    if builder_name not in _torchvision_names():
        return (
            f"network {name!r} is neither a classifier nor a network for segmentation of the "
            "installed torchvision"
        )
    return _objection_to_options(name, options, known=_option_names(builder_name))


def _torchvision_names() -> set[str]:
    models = torchvision.models
    places = (models, models.segmentation)
    return {name for place in places for name in models.list_models(module=place)}


def _objection_to_timm(name: str, options: Mapping[str, Any]) -> str | None:
    if importlib.util.find_spec("timm") is None:
        return f"network {name!r} needs timm, which isn't installed"
    timm = importlib.import_module("timm")
    base, _ = timm.models.split_model_name_tag(name.partition(":")[2])
    if base not in timm.list_models():
        return f"network {name!r} isn't a classifier of the installed timm"
    return _objection_to_options(name, options, known=_TIMM_OPTIONS)


def _objection_to_lite(name: str, options: Mapping[str, Any]) -> str | None:
    if importlib.util.find_spec("efficientnet_lite_pytorch") is None:
        return f"network {name!r} needs efficientnet-lite-pytorch, which isn't installed"
    if name.partition(":")[2] not in LITE_NETWORKS:
        return f"network {name!r} isn't one of efficientnet-lite-pytorch"
    return _objection_to_options(name, options, known=_LITE_OPTIONS)


def _objection_to_transformers(name: str, options: Mapping[str, Any]) -> str | None:
    config = options.get("config")
    if not isinstance(config, Mapping):
        return f"network {name!r} is read from a folder or the hub"
    if config.get("model_type") not in _TRANSFORMERS_TYPES:
        kind = str(config.get("model_type"))[:40]
        return f"network {name!r} has a configuration of the type {kind!r}, which isn't known here"
    for table in (config, {key: value for key, value in options.items() if key != "config"}):
        for key, value in table.items():
            if _NOT_SHAPES.search(str(key)):
                return f"network {name!r} takes no option {str(key)[:40]!r} from an untrusted file"
            if not _is_plain(value, largest=_LARGEST_OF_TABLES):
                return f"network {name!r}: option {key!r} isn't a plain value of limited size"
    return None


def _objection_to_options(
    name: str, options: Mapping[str, Any], *, known: frozenset[str]
) -> str | None:
    for key, value in options.items():
        if key in _DOWNLOADING or key not in known:
            return f"network {name!r} takes no option {key[:40]!r} from an untrusted file"
        if not _is_plain(value):
            return f"network {name!r}: option {key!r} isn't a plain value of limited size"
    return None


def _option_names(builder_name: str) -> frozenset[str]:
    """Return the argument names of a builder and of the class it builds."""
    builder = inspect.unwrap(torchvision.models.get_model_builder(builder_name))
    built = typing.get_type_hints(builder).get("return")
    found = set(inspect.signature(builder).parameters)
    if isinstance(built, type) and issubclass(built, nn.Module):
        found |= set(inspect.signature(built).parameters)
    return frozenset(found - {"self", "args", "kwargs", *_DOWNLOADING})


def _is_plain(value: object, *, largest: int = _LARGEST) -> bool:
    """Return whether a value consists of JSON types and is neither deep, long nor large."""
    level, count = [value], 0
    for _ in range(_DEEPEST):
        below: list[object] = []
        for one in level:
            count += 1
            if isinstance(one, list | tuple):
                below += one
            elif isinstance(one, int | float) and not isinstance(one, bool):
                if not abs(one) <= largest:  # also refuses NaN
                    return False
            elif not isinstance(one, str | bool | None):
                return False
        if count + len(below) > _MOST_VALUES:
            return False
        level = below
    return not level
