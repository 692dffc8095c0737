"""Measures how well a network's features separate the labels, and how well they can be learned.

A ridge regression is a precise measure with few images, but it does not depend on the scale of the
features. An optimizer does: features that are nearly zero, or of very different scales, teach it
little in the steps it has. So an output layer is also trained on them.
"""

import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.config import TrainingConfig
from dse.data.parts import Batch
from dse.errors import NetworkError
from dse.finetune.loop import learning_rate_at, torch_seeded
from dse.networks.forward import evaluating, output_layers, run, tensors_in
from dse.step.optimizers import make_optimizer
from dse.step.settings import StepSettings
from dse.tasks.task import Task

PENALTIES = (0.001, 0.01, 0.1, 1.0)  # of ridge regression, relative to the mean eigenvalue
FOLDS = 4  # output layers that are trained, each without a quarter of the images
STEPS = 64  # of each: enough to see whether it learns


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How well features separate the labels.

    Attributes:
        error: leave-one-out mean squared error of a ridge regression, over images and labels;
            infinite if features are not finite.
        accuracy: share of images that output layers classify correctly which the recipe's optimizer
            trained on other images, from 0 to 1.
        images: number of images.
    """

    error: float
    accuracy: float
    images: int


def best_separation(found: Sequence[Separation]) -> int:
    """Return the index of the least error among those whose accuracy is not clearly below the best.

    "Clearly" is by more than one standard error of the best accuracy. On a tie the first is taken.
    """
    best = max(found, key=lambda one: one.accuracy)
    limit = best.accuracy - math.sqrt(best.accuracy * (1 - best.accuracy) / best.images)
    near = [index for index, one in enumerate(found) if one.accuracy >= limit]
    return min(near, key=lambda index: found[index].error)


def separation(
    network: nn.Module, batches: Iterable[Batch], *, task: Task, settings: TrainingConfig
) -> Separation:
    """Return how well a network's features separate the labels.

    Features are the input of the output layer, averaged over positions.

    Args:
        network: evaluated in eval mode and left unchanged.
        batches: (images, labels) on the network's device; at least 2 images in total.
        task: task of the labels. Of other tasks than classification, whose targets a linear model
            of the features is fitted to, only the error of that is measured.
        settings: optimizer, batch size and peak learning rate of the recipe.
    """
    features, labels = _features(network, batches)
    features = features.float()
    if not bool(torch.isfinite(features).all()):
        return Separation(error=math.inf, accuracy=0.0, images=len(labels))
    classes = task.outputs
    wanted = task.kind.separable(labels, classes).double()
    learned = 0.0
    if task.kind.form == "class":
        learned = _learned(features, labels, classes=classes, settings=settings)
    return Separation(
        error=_leave_one_out(features.double(), wanted),
        accuracy=learned,
        images=len(labels),
    )


def _features(network: nn.Module, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Return features, (images, features), and labels, (images,)."""
    given: list[Tensor] = []
    found: list[Tensor] = []
    labels: list[Tensor] = []
    hooks: ExitStack | None = None
    with evaluating(network), torch.no_grad(), ExitStack() as stack:
        for images, own in batches:
            if hooks is None:
                hooks = stack
                for head in _heads(network, images):
                    hook = network.get_submodule(head).register_forward_pre_hook(
                        lambda _head, args: given.append(args[0])
                    )
                    stack.callback(hook.remove)
            output = next(tensors_in(run(network, images)))
            found.append(torch.cat([_pooled(one) for one in given or [output]], dim=1))
            labels.append(own)
            given.clear()
    return torch.cat(found), torch.cat(labels)


def _heads(network: nn.Module, images: Tensor) -> tuple[str, ...]:
    try:
        return output_layers(network, images[:1])
    except NetworkError:  # no linear output layer; the network's output serves as features
        return ()


def _pooled(given: Tensor) -> Tensor:
    """Return (images, features): the mean over all dimensions after the second."""
    return given.flatten(2).mean(dim=2) if given.dim() > 2 else given.flatten(1)  # noqa: PLR2004  # images and channels


def _leave_one_out(features: Tensor, wanted: Tensor) -> float:
    """Return the least leave-one-out mean squared error over all penalties.

    The dual problem of size (images, images) is solved, because there are few images. One
    eigendecomposition serves every penalty: dividing a residual by 1 - leverage gives the error of
    the regression without that image, so nothing is fitted again.
    """
    count = len(features)
    features = features - features.mean(dim=0)
    values, vectors = torch.linalg.eigh(features @ features.T)
    values = values.clamp_min(0)
    scale = float(values.sum()) / count
    if scale == 0:
        return float((wanted - wanted.mean(dim=0)).square().mean())
    rotated = vectors.T @ (wanted - wanted.mean(dim=0))
    losses = []
    for penalty in PENALTIES:
        shrunk = values / (values + penalty * scale)
        residual = wanted - wanted.mean(dim=0) - vectors @ (shrunk[:, None] * rotated)
        leverage = (vectors.square() @ shrunk + 1 / count).clamp_max(1 - 1e-6)
        losses.append(float((residual / (1 - leverage)[:, None]).square().mean()))
    return min(losses)


def _learned(features: Tensor, labels: Tensor, *, classes: int, settings: TrainingConfig) -> float:
    """Return the accuracy of trained output layers, each on the images it was not trained on."""
    correct = 0
    with torch_seeded(0, device=str(features.device)):
        order = torch.randperm(len(labels), device=features.device)
        for fold in range(min(FOLDS, len(labels))):
            left_out = torch.zeros_like(labels, dtype=torch.bool)
            left_out[order[fold::FOLDS]] = True
            layer = _trained(features[~left_out], labels[~left_out], classes, settings)
            with torch.no_grad():
                guessed = layer(features[left_out]).argmax(dim=1)
            correct += int((guessed == labels[left_out]).sum())
    return correct / len(labels)


def _trained(features: Tensor, labels: Tensor, classes: int, settings: TrainingConfig) -> nn.Linear:
    layer = nn.Linear(features.shape[1], classes, device=features.device, dtype=features.dtype)
    optimizer = make_optimizer(
        layer.parameters(), StepSettings.of(settings), learning_rate=settings.learning_rate
    )
    batch = min(settings.batch_size * settings.accumulate, len(labels))
    order = torch.empty(0, dtype=torch.long)
    for step in range(STEPS):
        if len(order) < batch:
            order = torch.randperm(len(labels))
        taken, order = order[:batch].to(labels.device), order[batch:]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, steps=STEPS, peak=settings.learning_rate)
        optimizer.zero_grad()
        loss = functional.cross_entropy(layer(features[taken]), labels[taken])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return layer
