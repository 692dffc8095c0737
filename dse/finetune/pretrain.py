"""Pretraining on the source labels of a study's own data, once, and cached."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from dse.config import Study
from dse.data import DataParts, source_parts
from dse.finetune.loop import LoopSettings, evaluate, finetune, recalibrate_batch_norm
from dse.finetune.schemes import apply_scheme
from dse.networks import build_network, example_input, load_tensors, replace_head

RECIPE_VERSION = 1  # to be raised when the training below changes


def default_cache() -> Path:
    """The folder of pretrained weights: ``$DSE_CACHE``, or ``~/.cache/dse``."""
    return Path(os.environ.get("DSE_CACHE", Path.home() / ".cache" / "dse"))


def pretrained(
    study: Study,
    *,
    classes: int,
    cache: Path | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> nn.Module:
    """Return the study's network, trained on its source labels, with a new output layer.

    The weights are kept under a digest of all that they depend on, so this trains once.

    Args:
        study: with ``[network.pretrain]``.
        classes: outputs of the new layer.
        cache: folder of cached weights; ``default_cache()`` if None.
        on_progress: told the share of the training done.

    Raises:
        TrainingError: the pretraining diverged.
        NetworkError: the cached file is damaged; the message names it.
    """
    pretrain = study.network.pretrain
    if pretrain is None:
        raise TypeError("pretrained() needs a study with [network.pretrain]")
    data = source_parts(study.data, pretrain, seed=study.seed)
    path = (cache or default_cache()) / f"pretrained-{_digest(study, data)}.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(study.seed)
        network = build_network(
            study.network.name,
            classes=data.classes,
            options=study.network.options,
            search_path=study.source_dir,
        )
        if path.exists():
            load_tensors(network, path)
        else:
            _train(network, study, data, on_progress)
            _save(network, path)
        torch.manual_seed(study.seed)
        replace_head(network, example_input(1, study.data.image_size), classes=classes)
    return network


def _train(
    network: nn.Module,
    study: Study,
    data: DataParts,
    on_progress: Callable[[float], None] | None,
) -> None:
    pretrain = study.network.pretrain
    assert pretrain is not None  # noqa: S101  # checked by the caller, told to the type checker
    settings = LoopSettings(
        learning_rate=pretrain.learning_rate,
        batch_size=pretrain.batch_size,
        device=study.training.device,
    )
    network.to(settings.device)
    apply_scheme(network, example_input(2, data.image_size, device=settings.device), "full")
    finetune(
        network,
        data.train,
        settings=settings,
        epochs=pretrain.epochs,
        seed=study.seed,
        on_progress=on_progress,
    )
    batches = data.train.batches(
        settings.batch_size, seed=study.seed, drop_last=True, device=settings.device
    )
    recalibrate_batch_norm(network, (images for images, _ in batches))
    evaluate(network, data.selection, settings=settings)  # refuses weights that aren't finite
    network.to("cpu")


def _save(network: nn.Module, path: Path) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    tensors = {name: t.detach().contiguous().clone() for name, t in network.state_dict().items()}
    save_file(tensors, partial)
    partial.replace(path)


def _digest(study: Study, data: DataParts) -> str:
    pretrain = study.network.pretrain
    images = data.train.images
    content = {
        "version": RECIPE_VERSION,
        "network": [study.network.name, study.network.options],
        "pretrain": None if pretrain is None else pretrain.model_dump(mode="json"),
        "data": study.data.model_dump(mode="json", exclude={"labels", "selection_share"}),
        "labels": data.labels,
        "split": [len(data.train), data.train.labels.tolist()],
        "pixels": int(images.long().sum()) if isinstance(images, torch.Tensor) else len(images),
        "seed": study.seed,
        "versions": [torch.__version__, torchvision.__version__],
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
