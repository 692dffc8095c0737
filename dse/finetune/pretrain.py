"""The network that a study starts from, pretrained once if the study asks for it."""

import inspect
import json
import logging
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from dse.caches import cache_folder
from dse.config import PretrainConfig, Study, TrainingConfig
from dse.data import DataParts, inputs_of, source_parts
from dse.data.joined import fingerprint, joined
from dse.digests import canonical_json, derived_seed, text_digest
from dse.errors import NetworkError, TrainingError
from dse.finetune.cached_weights import load_cached, write_cached
from dse.finetune.loop import FORWARD_BATCH, evaluate, finetune, torch_seeded
from dse.finetune.placed import placed, taken_back
from dse.finetune.statistics import recalibrate_batch_norm
from dse.networks.build import build_network
from dse.networks.devices import threads_set
from dse.networks.head import replace_head
from dse.step.schemes import apply_scheme

# Increase this when this module or the loop trains differently, so that cached files expire.
RECIPE_VERSION = 1

_LOG = logging.getLogger(__name__)

OnMessage = Callable[[str], None]


def starting_network(
    study: Study,
    *,
    classes: int,
    cache: Path | None = None,
    on_progress: Callable[[float], None] | None = None,
    on_message: OnMessage = _LOG.info,
) -> nn.Module:
    """Build a study's unpruned network with its starting weights and one output per label.

    Args:
        study: the study, which determines the network, its weights and the seed.
        classes: number of labels of the target.
        cache: see `pretrained`.
        on_progress: see `pretrained`.
        on_message: see `pretrained`.

    Raises:
        NetworkError: if the network or its weights can't be loaded.
        DseError: see `pretrained`.
    """
    if study.network.pretrain is not None:
        return pretrained(
            study, classes=classes, cache=cache, on_progress=on_progress, on_message=on_message
        )
    with torch_seeded(derived_seed(study.seed, "weights")):
        return build_network(
            study.network.name,
            classes=classes,
            weights=study.network.weights,
            options=study.network.options,
            search_path=study.source_dir,
            on_message=on_message,
            inputs=inputs_of(study.data),
            outputs=study.task.outputs,
        )


def pretrained(
    study: Study,
    *,
    classes: int,
    cache: Path | None = None,
    on_progress: Callable[[float], None] | None = None,
    on_message: OnMessage = _LOG.info,
) -> nn.Module:
    """Return the network pretrained on the source labels, with a new output layer for the target.

    The weights are cached in a safetensors file named by a digest of everything they depend on. A
    damaged file is replaced, with a warning.

    Args:
        study: a study with `[network.pretrain]`.
        classes: number of labels of the target.
        cache: folder of the files; `cache_folder()` if None.
        on_progress: called with the share of the pretraining that is done, from 0 to 1.
        on_message: called with one line about what is trained.

    Returns:
        The network on the CPU.

    Raises:
        NetworkError: if the network can't be built.
        DataError: if the source images can't be loaded.
        TrainingError: if the pretraining diverged.
        RunError: if the cache can't be written.
    """
    network, _ = pretrained_source(
        study, cache=cache, on_progress=on_progress, on_message=on_message
    )
    with torch_seeded(derived_seed(study.seed, "head")):
        replace_head(network, inputs_of(study.data).example(1), classes=classes)
    return network


def pretrained_source(
    study: Study,
    *,
    cache: Path | None = None,
    on_progress: Callable[[float], None] | None = None,
    on_message: OnMessage = _LOG.info,
) -> tuple[nn.Module, DataParts]:
    """Return the pretrained network with its source output layer, and the source's images.

    Args:
        study: see `pretrained`.
        cache: see `pretrained`.
        on_progress: see `pretrained`.
        on_message: see `pretrained`.

    Raises:
        DseError: see `pretrained`.
    """
    recipe = study.network.pretrain
    if recipe is None:
        raise NetworkError(
            f'study {study.name!r} has no [network.pretrain]: set network.weights = "pretrain"'
        )
    folder = cache_folder() if cache is None else cache
    parts = source_parts(study.data, recipe, seed=study.seed)
    with torch_seeded(derived_seed(study.seed, "pretrain")):
        network = build_network(
            study.network.name,
            classes=parts.classes,
            options=study.network.options,
            search_path=study.source_dir,
            inputs=parts.inputs,
        )
    content = _content(study, network, parts, recipe)
    digest = text_digest(content)
    path = folder / f"pretrained-{digest}.safetensors"
    if not load_cached(network, path):
        _pretrain(
            network, study, parts, recipe=recipe, on_progress=on_progress, on_message=on_message
        )
        write_cached(network, path, {"digest": digest, "content": content})
    return network, parts


def _pretrain(
    network: nn.Module,
    study: Study,
    parts: DataParts,
    *,
    recipe: PretrainConfig,
    on_progress: Callable[[float], None] | None,
    on_message: OnMessage,
) -> None:
    """Train the whole network on the source labels; leave it in eval mode on the CPU."""
    training = study.training
    settings = TrainingConfig(
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        memory_format=training.memory_format,
        threads=training.threads,
        device=training.device,
    )
    # Nothing is selected on the source's selection part, so it can be trained on as well.
    part = joined(parts.train, parts.selection)
    labels = ", ".join(parts.labels)
    on_message(f"pretrains on {len(part)} images of {labels}; this is done once")
    started = time.perf_counter()
    device, memory_format = settings.device, settings.memory_format
    with threads_set(settings.threads):
        placed(network, settings)
        apply_scheme(network, parts.input_spec.example(2, device=device), settings.scheme)
        try:
            finetune(
                network,
                part,
                settings=settings,
                epochs=recipe.epochs,
                seed=derived_seed(study.seed, "pretrain"),
                on_progress=on_progress,
            )
            batches = part.batches(
                min(FORWARD_BATCH, len(part)),
                seed=derived_seed(study.seed, "pretrain", "statistics"),
                drop_last=True,
                memory_format=memory_format,
                device=device,
            )
            recalibrate_batch_norm(network, batches)
            score = evaluate(
                network,
                parts.validation,
                batch_size=FORWARD_BATCH,
                memory_format=memory_format,
                device=device,
            )
        except TrainingError as error:
            raise TrainingError(f"network.pretrain: {error}") from error
        taken_back(network)
    seconds = time.perf_counter() - started
    on_message(
        f"pretrained in {seconds:.0f} s: {100 * score.accuracy:.1f} % on the "
        f"{len(parts.validation)} validation images of {labels}"
    )


def _content(study: Study, network: nn.Module, parts: DataParts, recipe: PretrainConfig) -> str:
    """Return everything that pretrained weights depend on, as canonical JSON."""
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    structure = json.dumps([repr(network), _source_code(network), shapes])
    content: dict[str, Any] = {
        "recipe_version": RECIPE_VERSION,
        "network": study.network.name,
        "options": study.network.options,
        "structure": text_digest(structure, length=64),
        "labels": parts.labels,
        "image_size": parts.image_size,
        "mean": parts.mean,
        "std": parts.std,
        "augment": parts.train.augment,
        **({} if study.data.transforms is None else {"transforms": study.data.transforms}),
        "data": [fingerprint(part) for part in (parts.train, parts.selection)],
        "recipe": recipe.model_dump(mode="json", exclude={"labels"}),
        "memory_format": study.training.memory_format,
        "device": study.training.device,
        "seed": study.seed,
        "versions": [version("torch"), version("torchvision")],
    }
    return canonical_json(content)


def _source_code(network: nn.Module) -> str:
    """Return the source code of the network's class, which `repr` doesn't show."""
    try:
        return inspect.getsource(type(network))
    except (OSError, TypeError):  # defined at run time, so there is no source code
        return type(network).__qualname__
