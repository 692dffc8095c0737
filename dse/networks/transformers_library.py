"""Image and text classifiers, and networks for segmentation, of Hugging Face transformers.

The network is described by a configuration: that of a name on the hub, that of a folder with a
config.json, or that of the option `config`, with which nothing is read. A repository's own code is
never run.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dse.errors import NetworkError
from dse.names import Outputs
from dse.networks.calls import call, did_you_mean
from dse.networks.hub import cached, quick_failure
from dse.networks.library import (
    DEFAULT_WEIGHTS,
    NO_WEIGHTS,
    Library,
    Wanted,
    downloading,
    imported,
)
from dse.textfiles import exists
from dse.user_code import USER_ERRORS, described

CONFIG = "config"
_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
_RESERVED = ("num_classes", "num_labels", "weights", "trust_remote_code", "id2label", "label2id")
# What a configuration says beside the network's shape.
_UNUSED = ("id2label", "label2id", "architectures", "torch_dtype", "dtype", "transformers_version")
_AUTOMATIC: dict[Outputs, tuple[str, ...]] = {
    "vector": ("AutoModelForImageClassification", "AutoModelForSequenceClassification"),
    "maps": ("AutoModelForSemanticSegmentation",),
}


def described_by(name: str, options: Mapping[str, Any], *, folder: Path | None) -> dict[str, Any]:
    """Return options that build the same network without its folder or the hub.

    Args:
        name: name of the network, such as `hf:my_folder`.
        options: options of the study.
        folder: folder that a relative path starts at.

    Raises:
        NetworkError: If the configuration can't be read.
    """
    wanted = Wanted(
        title=name,
        name=name.partition(":")[2],
        classes=2,
        options=dict(options),
        folder=folder,
    )
    config = _config(wanted).to_diff_dict()
    left_out = (*_UNUSED, "_name_or_path", "problem_type")
    return {CONFIG: {key: value for key, value in config.items() if key not in left_out}}


def _build(wanted: Wanted) -> nn.Module:
    transformers = imported("transformers", title=wanted.title)
    config = _config(wanted)
    factory = _factory(transformers, config, wanted)
    if wanted.weights == NO_WEIGHTS:
        return _called(wanted, factory.from_config, {"config": config})
    if wanted.weights != DEFAULT_WEIGHTS:
        raise NetworkError(
            f"weights {wanted.weights!r} aren't available for {wanted.title!r}: use 'default', "
            "a file of weights, or 'none'"
        )
    if CONFIG in wanted.options:
        raise NetworkError(
            f"network {wanted.title!r}: the option 'config' comes without weights: use a file of "
            "weights, or 'none'"
        )
    hub = imported("huggingface_hub", title=wanted.title)
    place = "on a machine with a network download the model, and name its folder as hf:FOLDER"
    loaded = {"config": config, "ignore_mismatched_sizes": True}
    with downloading(wanted, place=place), quick_failure(hub.constants), _silent(transformers):
        network = _called(
            wanted,
            factory.from_pretrained,
            {"pretrained_model_name_or_path": _place(wanted), **loaded},
        )
        wanted.state_classes(_read(transformers, wanted).num_labels)
    return network


def _called(wanted: Wanted, factory: Any, arguments: dict[str, Any]) -> nn.Module:
    shown = {"num_classes": wanted.classes, **wanted.options}
    network = call(
        wanted.title,
        factory,
        {**arguments, "dtype": torch.float32, "trust_remote_code": False},
        shown=shown,
    )
    return network.train()  # as other libraries build theirs


class _silent:  # noqa: N801  # used as a context manager
    """Keep transformers from printing tables about new layers; errors stay."""

    def __init__(self, transformers: Any) -> None:
        self._log = transformers.utils.logging

    def __enter__(self) -> None:
        self._level = self._log.get_verbosity()
        self._log.set_verbosity_error()
        self._log.disable_progress_bar()

    def __exit__(self, *_error: object) -> None:
        self._log.set_verbosity(self._level)
        self._log.enable_progress_bar()


def _place(wanted: Wanted) -> str:
    """Return the folder that a name is, or the name on the hub."""
    for folder in (wanted.folder, Path.cwd()):
        path = Path(folder or "") / Path(wanted.name).expanduser()
        if exists(path) and path.is_dir():
            return str(path.resolve())
    return wanted.name


def _config(wanted: Wanted) -> Any:
    """Read or build the configuration of a network, with the study's options.

    Raises:
        NetworkError: If it can't be found or read, or has no field of an option's name.
    """
    transformers = imported("transformers", title=wanted.title)
    given = {key: value for key, value in wanted.options.items() if key != CONFIG}
    inline = wanted.options.get(CONFIG)
    config = _read(transformers, wanted) if inline is None else _inline(transformers, wanted)
    for key in given:
        if key.startswith("_") or (key != "attn_implementation" and not hasattr(config, key)):
            known = [one for one in vars(config) if not one.startswith("_")]
            raise NetworkError(
                f"network {wanted.title!r}: a configuration of {config.model_type!r} has no "
                f"{key!r}{did_you_mean(key, known)}"
            )
    try:
        changed = type(config).from_dict({**config.to_dict(), **given, **_FIXED})
        changed.num_labels = wanted.classes
        if hasattr(changed, "pad_token_id") and changed.pad_token_id is None:
            changed.pad_token_id = getattr(changed, "eos_token_id", None)  # batches need one
    except USER_ERRORS as error:
        raise NetworkError(
            f"network {wanted.title!r}: its configuration is invalid: {_one_line(error)}"
        ) from error
    return changed


# Outputs by name, and none of what only generation reads.
_FIXED = {"return_dict": True, "use_cache": False}


def _read(transformers: Any, wanted: Wanted) -> Any:
    hub = imported("huggingface_hub", title=wanted.title)
    place = _place(wanted)
    try:
        with quick_failure(hub.constants):
            return transformers.AutoConfig.from_pretrained(place, trust_remote_code=False)
    except USER_ERRORS as error:  # a config.json may hold anything
        folder = Path(place)
        if folder.is_dir() and not (folder / "config.json").is_file():
            reason = f"{folder} has no config.json"
        elif not folder.is_dir() and isinstance(error, OSError):
            reason = (
                f"there is no such folder, and the hub's can't be read ({_one_line(error)}): give "
                "a folder with a config.json, or download the model where there is a network"
            )
        elif "trust_remote_code" in str(error):
            reason = "it needs code of its repository, which is never run: write a factory for it"
        else:
            reason = f"its config.json can't be read: {_one_line(error)}"
        raise NetworkError(f"network {wanted.title!r}: {reason}") from error


def _inline(transformers: Any, wanted: Wanted) -> Any:
    """Build the configuration from the option `config`."""
    table = wanted.options[CONFIG]
    if not isinstance(table, dict) or not isinstance(table.get("model_type"), str):
        raise NetworkError(
            f"network {wanted.title!r}: the option 'config' must be a table with a model_type, as "
            "in a config.json"
        )
    fields = {key: value for key, value in table.items() if key != "model_type"}
    try:
        return transformers.AutoConfig.for_model(table["model_type"], **fields)
    except USER_ERRORS as error:
        raise NetworkError(
            f"network {wanted.title!r}: the option 'config' is invalid: {_one_line(error)}"
        ) from error


def _factory(transformers: Any, config: Any, wanted: Wanted) -> Any:
    """Return the automatic class that builds a network of a configuration.

    Raises:
        NetworkError: If there is no such network of its type.
    """
    named = [one for one in config.architectures or () if isinstance(one, str)]
    classes = [getattr(transformers, name) for name in _AUTOMATIC[wanted.outputs]]
    fitting = [one for one in classes if type(config) in one._model_mapping]  # noqa: SLF001
    # A type that has both, such as Perceiver's, says by its architecture which one it is.
    for one in fitting:
        built = one._model_mapping[type(config)]  # noqa: SLF001
        options = built if isinstance(built, tuple) else (built,)
        if any(each.__name__ in named for each in options):
            return one
    if not fitting:
        what = (
            "network for segmentation" if wanted.outputs == "maps" else "image or text classifier"
        )
        raise NetworkError(
            f"network {wanted.title!r}: transformers has no {what} of the type "
            f"{config.model_type!r}: write a factory for it"
        )
    return fitting[0]


def _one_line(error: BaseException) -> str:
    return " ".join(described(error).split())


def _check_weights(wanted: Wanted) -> Iterator[str]:
    transformers = imported("transformers", title=wanted.title)
    hub = imported("huggingface_hub", title=wanted.title)
    _factory(transformers, _config(wanted), wanted)
    place = Path(_place(wanted))
    if place.is_dir():
        if not any((place / file).is_file() for file in _FILES):
            raise NetworkError(
                f"network.weights = {wanted.weights!r}: {place} holds none of "
                f"{', '.join(_FILES)}: use a file of weights, or 'none'"
            )
    elif cached(hub, wanted.name, _FILES) is None:
        yield f"weights {wanted.weights!r} will be downloaded ({wanted.name})"


LIBRARY = Library(build=_build, check_weights=_check_weights, reserved=_RESERVED)
