"""Tasks other than plain classification: their data, their loss and their metric."""

import csv
import importlib
import math
import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from training import (
    AUXILIARY_WEIGHT,
    FORWARD_BATCH,
    VALIDATION_FOLDERS,
    VALIDATION_SHARE,
    Recipe,
    accuracy,
    image_folder,
    image_shape,
    logits_of,
    normalised,
    pixels,
    set_modes,
)

VALUES = ("multi-label", "regression")


class Samples:
    """Images with their targets, read when they are needed."""

    def __init__(self, rows: list[tuple[Path, Any]], recipe: Recipe) -> None:
        self.rows, self.recipe = rows, recipe

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        """Return an image and its values; or an image with its mask as a last channel, and 0."""
        path, target = self.rows[position]
        with Image.open(path) as image:
            read = pixels(image, self.recipe)
        if isinstance(target, Path):
            return torch.cat([read, mask(target, self.recipe)]), torch.tensor(0)
        return read, target


def read(
    root: Path, table: Path | None, recipe: Recipe, *, seed: int
) -> tuple[list[str], Any, Any]:
    """Return the labels, and the samples to train on and to validate on."""
    kind = recipe["task"]["kind"]
    if kind == "classification":
        labels, train, validation = image_folder(root, recipe, seed=seed)
        return labels, train, validation
    if not root.is_dir():
        raise SystemExit(f"{root} is no folder")
    if kind in VALUES:
        labels, train, validation = _table(root, table, recipe, seed=seed)
    else:
        labels, train, validation = recipe["labels"], *_masks(root, seed=seed)
    if len(train) < recipe["batch_size"]:
        raise SystemExit(f"{len(train)} images are fewer than a batch of {recipe['batch_size']}")
    if not validation:
        raise SystemExit(f"{root} leaves no image for validation")
    return labels, Samples(train, recipe), Samples(validation, recipe)


def _table(
    root: Path, table: Path | None, recipe: Recipe, *, seed: int
) -> tuple[list[str], list[tuple[Path, Any]], list[tuple[Path, Any]]]:
    if table is None:
        raise SystemExit("give --table: a CSV file with the images' names, then their targets")
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file, delimiter="\t" if table.suffix == ".tsv" else ","))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SystemExit(f"{table} can't be read: {error}") from error
    names = [name for name in (lines[0] if lines else {}) if name is not None]
    columns = [name for name in names[1:] if name != "split"]
    same = set(recipe["labels"]) <= set(columns)
    labels = list(recipe["labels"]) if same else columns
    parts: dict[str, list[tuple[Path, Tensor]]] = {"": [], "train": [], "val": []}
    for number, line in enumerate(lines, 2):
        try:
            values = torch.tensor([float(line[name]) for name in labels])
        except (KeyError, TypeError, ValueError) as error:
            raise SystemExit(f"{table}, line {number}: give a number in each column") from error
        if not values.isfinite().all():
            raise SystemExit(f"{table}, line {number}: give a finite number in each column")
        part = (line.get("split") or "").strip().lower()
        part = part if part in ("", "train") else "val"
        parts[part].append((root / line[names[0]], values))
    train, validation = parts["train"] or parts[""], parts["val"]
    if not validation:
        train, validation = _split(train, seed=seed)
    if recipe["task"]["kind"] == "regression" and recipe["task"]["std"] is not None and train:
        mean, std = torch.tensor(recipe["task"]["mean"]), torch.tensor(recipe["task"]["std"])
        if not same:
            every = torch.stack([values for _, values in train])
            mean, std = every.mean(0), every.std(0, correction=0).clamp_min(1e-12)
            recipe["task"] |= {"mean": mean.tolist(), "std": std.tolist()}
            print(f"outputs stand for (value - {mean.tolist()}) / {std.tolist()}")
        train = [(path, (values - mean) / std) for path, values in train]
        validation = [(path, (values - mean) / std) for path, values in validation]
    return labels, train, validation


def _masks(root: Path, *, seed: int) -> tuple[list[tuple[Path, Any]], list[tuple[Path, Any]]]:
    train_root = root / "train" if (root / "train").is_dir() else root
    train = _pairs(train_root)
    held = next((root / n for n in VALIDATION_FOLDERS if (root / n).is_dir()), None)
    if held is not None and train_root != root:
        return train, _pairs(held)
    return _split(train, seed=seed)


def _pairs(folder: Path) -> list[tuple[Path, Any]]:
    images, masks = folder / "images", folder / "masks"
    if not images.is_dir() or not masks.is_dir():
        raise SystemExit(f"{folder} needs the folders images/ and masks/")
    of = {one.stem: one for one in masks.iterdir()}
    found = sorted(one for one in images.iterdir() if not one.name.startswith("."))
    if lost := next((one for one in found if one.stem not in of), None):
        raise SystemExit(f"{lost} has no mask of its name in {masks}")
    return [(one, of[one.stem]) for one in found]


def _split(rows: list[tuple[Path, Any]], *, seed: int) -> tuple[list[Any], list[Any]]:
    rows = list(rows)
    random.Random(seed).shuffle(rows)
    cut = round(VALIDATION_SHARE * len(rows))
    return rows[cut:], rows[:cut]


def mask(path: Path, recipe: Recipe) -> Tensor:
    """Return a mask's centre, scaled by the nearest pixel: (1, height, width) uint8."""
    _, height, width = image_shape(recipe)
    with Image.open(path) as image:
        if image.mode not in ("1", "L", "P", "I", "I;16"):
            raise SystemExit(f"{path} has colours: save the number of each pixel's class")
        if image.width * height <= image.height * width:
            kept = (float(image.width), image.width * height / width)
        else:
            kept = (image.height * width / height, float(image.height))
        kept = tuple(one * recipe["preprocessing"].get("crop", 1.0) for one in kept)
        left, top = (image.width - kept[0]) / 2, (image.height - kept[1]) / 2
        box = (left, top, left + kept[0], top + kept[1])
        values = image.resize((width, height), Image.Resampling.NEAREST, box=box)
        read = torch.from_numpy(np.array(values).astype("int64")).flatten()
    ignored = recipe["task"]["ignore"]
    wrong = read[(read >= len(recipe["labels"])) & (read != ignored)]
    if len(wrong):
        raise SystemExit(f"{path} has the class {int(wrong[0])}, which recipe.json lacks")
    return read.to(torch.uint8).view(1, height, width)


class SmoothedCrossEntropy(nn.Module):
    """Cross-entropy with label smoothing, by operators whose sizes don't depend on the targets."""

    def __init__(self, weight: Tensor | None, smoothing: float, ignore: int) -> None:
        super().__init__()
        self.weight: Tensor | None
        self.register_buffer("weight", weight)
        self.smoothing, self.ignore = smoothing, ignore

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean, weighted by the classes' weights."""
        every = found = functional.log_softmax(logits, dim=1)
        own = functional.nll_loss(found, targets, self.weight, ignore_index=self.ignore)
        counted = targets != self.ignore
        shares = counted.to(found.dtype)
        if self.weight is not None:
            shares = shares * self.weight[targets * counted]
            every = found * self.weight.view(1, -1, *[1] * (found.ndim - 2))
        spread = -(every.sum(dim=1) * counted).sum() / shares.sum()
        return (1 - self.smoothing) * own + self.smoothing / logits.shape[1] * spread


def make_loss(recipe: Recipe, *, device: str) -> Callable[[Any, Tensor], Tensor]:
    """Return the recipe's loss of a network's outputs and the targets."""
    task = recipe["task"]
    criterion = _criterion(task, device)

    def of(logits: Tensor, targets: Tensor) -> Tensor:
        return criterion(_at_size_of(targets, logits), targets)

    def loss(outputs: Any, targets: Tensor) -> Tensor:
        main = logits_of(outputs)
        found = of(main, targets)
        every: Iterable[Any] = ()
        if not isinstance(outputs, Tensor):
            every = outputs.values() if isinstance(outputs, dict) else outputs
        for one in every:
            if isinstance(one, Tensor) and one is not main and one.shape == main.shape:
                found = found + AUXILIARY_WEIGHT * of(one, targets)
        return found

    return loss


def _criterion(task: dict[str, Any], device: str) -> Callable[[Tensor, Tensor], Tensor]:
    name = task["loss"]
    if ":" in name:
        made = _imported("loss", name)(**task["loss_options"])
        return made.to(device) if isinstance(made, nn.Module) else made
    weights = task["class_weights"] or task["positive_weights"]
    weight = None if weights is None else torch.tensor(weights, device=device)
    if name == "cross-entropy":
        ignore = task["ignore"] if task["kind"] == "segmentation" else -100
        if task["label_smoothing"]:
            return SmoothedCrossEntropy(weight, task["label_smoothing"], ignore)
        return nn.CrossEntropyLoss(weight, ignore_index=ignore)
    if name == "binary-cross-entropy":
        return nn.BCEWithLogitsLoss(pos_weight=weight)
    plain = {"mse": nn.MSELoss, "l1": nn.L1Loss, "smooth-l1": nn.SmoothL1Loss}
    if name not in plain:
        raise SystemExit(f"recipe.json: loss {name!r} is unknown here: add it to tasks.py")
    return plain[name]()


def _imported(what: str, name: str) -> Callable[..., Any]:
    """Return a factory of the study's own code, from this bundle's or the working directory."""
    sys.path.insert(0, str(Path.cwd()))
    module, _, factory = name.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), factory)
    except (ImportError, AttributeError) as error:
        raise SystemExit(
            f"the {what} {name!r} can't be imported ({error}): run this where its module lies"
        ) from error
    return found


def score(network: nn.Module, data: Any, recipe: Recipe, *, device: str) -> str:
    """Return the recipe's metric on some samples, as text."""
    kind, name = recipe["task"]["kind"], recipe["metric"]
    if kind == "classification" and ":" not in name:
        return f"accuracy {accuracy(network, data, recipe, device=device):.4g}"
    given, true = _outputs(network, data, recipe, device=device)
    if kind == "regression" and recipe["task"]["std"] is not None:
        mean, std = torch.tensor(recipe["task"]["mean"]), torch.tensor(recipe["task"]["std"])
        given, true = given * std + mean, true * std + mean
    if ":" in name:
        found = _own(_imported("metric", name)(), given, true)
    elif kind == "segmentation":
        found = _of_pixels(given.argmax(1), true, recipe)
    elif kind == "multi-label":
        found = _of_labels(given, true, name)
    else:
        found = _of_values(given, true, name)
    return f"{name} {found:.4g}"


def _outputs(
    network: nn.Module, data: Any, recipe: Recipe, *, device: str
) -> tuple[Tensor, Tensor]:
    """Return all logits and targets; maps in the masks' size."""
    network.eval()
    outputs, targets = [], []
    with torch.no_grad():
        for start in range(0, len(data), FORWARD_BATCH):
            chosen = [data[n] for n in range(start, min(start + FORWARD_BATCH, len(data)))]
            images = torch.stack([image for image, _ in chosen])
            target = torch.stack([torch.as_tensor(one) for _, one in chosen])
            if recipe["task"]["kind"] == "segmentation":
                images, target = images[:, :-1], images[:, -1].long()
            logits = logits_of(network(normalised(images, recipe).to(device))).cpu()
            outputs.append(_at_size_of(target, logits))
            targets.append(target)
    set_modes(network, recipe)
    return torch.cat(outputs), torch.cat(targets)


def _at_size_of(masks: Tensor, logits: Tensor) -> Tensor:
    if masks.ndim != 3 or logits.shape[2:] == masks.shape[1:]:
        return logits
    return functional.interpolate(
        logits, size=masks.shape[1:], mode="bilinear", align_corners=False
    )


def _own(metric: Any, given: Tensor, true: Tensor) -> float:
    if hasattr(metric, "update") and hasattr(metric, "compute"):
        metric.reset()
        metric.update(given, true)
        return float(metric.compute())
    return float(metric(given, true))


def _of_pixels(given: Tensor, true: Tensor, recipe: Recipe) -> float:
    counted, classes = true != recipe["task"]["ignore"], len(recipe["labels"])
    pairs = true[counted] * classes + given[counted]
    counts = torch.bincount(pairs, minlength=classes**2).view(classes, classes).double()
    right, union = counts.diagonal(), counts.sum(0) + counts.sum(1) - counts.diagonal()
    if recipe["metric"] == "pixel-accuracy":
        return float(right.sum() / counts.sum())
    return float((right / union)[union > 0].mean())


def _of_labels(given: Tensor, true: Tensor, name: str) -> float:
    found = []
    for scores, own in zip(given.T, true.T, strict=True):
        if name == "label-f1":
            right = ((scores > 0) & (own > 0)).sum()
            found.append(float(2 * right / ((scores > 0).sum() + (own > 0).sum()).clamp_min(1)))
        elif own.any():
            order = scores.argsort(descending=True)
            hits = own[order].cumsum(0)
            precision = hits / torch.arange(1, len(own) + 1)
            found.append(float((precision * own[order]).sum() / own.sum()))
    return sum(found) / max(1, len(found))


def _of_values(given: Tensor, true: Tensor, name: str) -> float:
    apart = given - true
    if name == "mae":
        return float(apart.abs().mean())
    if name == "rmse":
        return math.sqrt(float(apart.square().mean()))
    spread = (true - true.mean(0)).square().sum(0)
    return float((1 - apart.square().sum(0) / spread).mean())
