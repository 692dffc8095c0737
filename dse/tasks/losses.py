"""Losses of the tasks, as a training step computes them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.config import TaskConfig
from dse.inputs import InputSpec
from dse.names import LOSSES as SUMMARIES
from dse.networks.logits import all_logits
from dse.registry import Registry
from dse.step.canonical import AUXILIARY_WEIGHT

Criterion = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class LossKind:
    """A loss by name.

    Attributes:
        build: makes the criterion: a module that maps logits and targets to their mean loss. Gets
            the study's `[task]`, and the weights of the classes or of the labels' positive
            samples, (outputs,), None for none.
    """

    build: Callable[[TaskConfig, Tensor | None], nn.Module]


_NONE = -100  # torch's own, which no class has

LOSSES: Registry[LossKind] = Registry("loss", SUMMARIES)


class SmoothedCrossEntropy(nn.Module):
    """Cross-entropy with label smoothing, by operators whose sizes don't depend on the targets.

    PyTorch's own selects the targets that aren't ignored, so the memory of a step would depend on
    them. The values are the same (Szegedy et al., 2016, section 7).

    Attributes:
        smoothing: share of the target that is spread over all classes.
        ignore: target that isn't counted.
    """

    def __init__(self, weights: Tensor | None, *, smoothing: float, ignore: int) -> None:
        super().__init__()
        self.weight: Tensor | None
        self.register_buffer("weight", weights)
        self.smoothing, self.ignore = smoothing, ignore

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean, weighted by the classes' weights."""
        found = functional.log_softmax(logits, dim=1)
        own = functional.nll_loss(found, targets, self.weight, ignore_index=self.ignore)
        counted = targets != self.ignore
        shares = counted.to(found.dtype)
        every = found
        if self.weight is not None:
            shares = shares * self.weight[targets * counted]
            every = found * self.weight.view(1, -1, *[1] * (found.ndim - 2))
        spread = -(every.sum(dim=1) * counted).sum() / shares.sum()
        return (1 - self.smoothing) * own + self.smoothing / logits.shape[1] * spread


def _cross_entropy(task: TaskConfig, weights: Tensor | None) -> nn.Module:
    ignore = task.ignore if task.outputs == "maps" else _NONE
    if task.label_smoothing:
        return SmoothedCrossEntropy(weights, smoothing=task.label_smoothing, ignore=ignore)
    return nn.CrossEntropyLoss(weights, ignore_index=ignore)


LOSSES.register("cross-entropy", LossKind(build=_cross_entropy))
LOSSES.register(
    "binary-cross-entropy",
    LossKind(build=lambda _task, weights: nn.BCEWithLogitsLoss(pos_weight=weights)),
)
LOSSES.register("mse", LossKind(build=lambda _task, _weights: nn.MSELoss()))
LOSSES.register("l1", LossKind(build=lambda _task, _weights: nn.L1Loss()))
LOSSES.register("smooth-l1", LossKind(build=lambda _task, _weights: nn.SmoothL1Loss()))


class TaskLoss(nn.Module):
    """The loss of one task, as the canonical step computes it of a network's outputs.

    Attributes:
        target: shape and type of one sample's target.
        criterion: maps (logits, targets) to one number.
        key: identifies everything that the memory of a step depends on; None if that isn't known.
    """

    def __init__(
        self, criterion: nn.Module | Criterion, *, target: InputSpec, key: str | None
    ) -> None:
        super().__init__()
        self.criterion = criterion
        self.target = target
        self.key = key

    def forward(self, outputs: object, targets: Tensor) -> Tensor:
        """Return the loss of the logits; auxiliary heads count with a weight of 0.3 each."""
        if isinstance(outputs, Tensor):
            return self.of(outputs, targets)
        main, *auxiliary = all_logits(outputs)
        loss = self.of(main, targets)
        for logits in auxiliary:
            loss = loss + AUXILIARY_WEIGHT * self.of(logits, targets)
        return loss

    def of(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits, which are brought to the size of masks first."""
        return self.criterion(at_size_of(targets, logits), targets)


def at_size_of(targets: Tensor, logits: Tensor) -> Tensor:
    """Scale maps of logits to the size of the masks they are compared with.

    Args:
        targets: (n, height, width) masks; targets of any other shape change nothing.
        logits: (n, classes, height, width) of any size.
    """
    size = targets.shape[1:]
    if targets.ndim != 3 or logits.ndim != 4 or logits.shape[2:] == size:  # noqa: PLR2004  # maps
        return logits
    return functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def weights_for(task: TaskConfig, counts: Tensor | None, *, outputs: int) -> Tensor | None:
    """Return the weights of classes, or of the labels' positive samples; None for none.

    Args:
        task: the study's `[task]`.
        counts: samples or pixels of each class, (outputs,); or number of positive samples of each
            label and of all samples, (outputs + 1,). None if the data haven't been read: weights
            that depend on them are then ones.
        outputs: number of classes or labels.
    """
    given = task.class_weights or task.positive_weights
    if given is None:
        return None
    if given != "balanced":
        return torch.tensor(given, dtype=torch.float32)
    if counts is None:
        return torch.ones(outputs)
    counts = counts.double()
    if task.positive_weights:
        positive = counts[:-1]
        return ((counts[-1] - positive) / positive.clamp_min(1)).clamp_min(1e-3).float()
    return (counts.sum() / (outputs * counts.clamp_min(1))).float()
