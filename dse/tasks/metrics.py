"""Metrics of the tasks, computed from a network's outputs on a whole part of the data."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
)
from torch import Tensor
from torch.nn import functional

from dse.metrics import Confusion
from dse.names import METRICS as SUMMARIES
from dse.registry import Registry

Values = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class MetricKind:
    """A metric by name.

    Attributes:
        of_counts: computes it from the confusion matrix of samples or pixels; None if it needs the
            values themselves.
        of_values: computes it from all logits and targets, (n, outputs) each, in the targets' own
            units; None if it needs the confusion matrix.
    """

    of_counts: Callable[[Confusion], float] | None = None
    of_values: Callable[[Tensor, Tensor], float] | None = None


METRICS: Registry[MetricKind] = Registry("metric", SUMMARIES)


def _counted(name: str) -> MetricKind:
    return MetricKind(of_counts=lambda confusion: confusion.score(name))


def _mean_average_precision(logits: Tensor, targets: Tensor) -> float:
    """Mean over the labels with a positive sample."""
    found = [
        float(average_precision_score(true, given))
        for true, given in zip(targets.T.numpy() > 0, logits.T.numpy(), strict=True)
        if true.any()
    ]
    return float(np.mean(found)) if found else 0.0


def _label_f1(logits: Tensor, targets: Tensor) -> float:
    true, given = targets.numpy() > 0, logits.numpy() > 0  # a sigmoid above one half
    # With one column scikit-learn would count the negative samples as a label of their own.
    columns = zip(true.T, given.T, strict=True)
    return float(np.mean([f1_score(one, other, zero_division=0.0) for one, other in columns]))


for _name in ("accuracy", "balanced-accuracy", "macro-f1", "mean-iou", "pixel-accuracy"):
    METRICS.register(_name, _counted(_name))
METRICS.register("mean-average-precision", MetricKind(of_values=_mean_average_precision))
METRICS.register("label-f1", MetricKind(of_values=_label_f1))
METRICS.register(
    "r2", MetricKind(of_values=lambda given, true: float(r2_score(true.numpy(), given.numpy())))
)
METRICS.register(
    "mae",
    MetricKind(
        of_values=lambda given, true: float(mean_absolute_error(true.numpy(), given.numpy()))
    ),
)
METRICS.register(
    "rmse",
    MetricKind(
        of_values=lambda given, true: float(mean_squared_error(true.numpy(), given.numpy()) ** 0.5)
    ),
)


@dataclass
class Tally:
    """Collects what metrics are computed from, batch by batch.

    Attributes:
        classes: number of classes of a confusion matrix; None to keep logits and targets.
        ignore: target that isn't counted.
        keeps: whether logits and targets are kept although there is a confusion matrix.
        unscaled: brings logits and targets to the targets' own units.
    """

    classes: int | None
    ignore: int | None = None
    keeps: bool = False
    unscaled: Callable[[Tensor], Tensor] = lambda values: values
    _counts: Tensor | None = field(default=None, init=False)
    _kept: list[Values] = field(default_factory=list, init=False)

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Add one batch.

        Args:
            logits: (n, outputs), or maps of (n, outputs, height, width).
            targets: (n,) classes, (n, outputs) values, or masks of the maps' height and width.
        """
        if self.classes is None or self.keeps:
            self._kept.append((self.unscaled(logits.float().cpu()), self.unscaled(targets.cpu())))
        if self.classes is not None:
            self._counts = self._added(logits.argmax(dim=1), targets, self.classes)

    def _added(self, predicted: Tensor, targets: Tensor, classes: int) -> Tensor:
        if self.ignore is not None:
            predicted, targets = predicted[targets != self.ignore], targets[targets != self.ignore]
        pairs = targets.flatten() * classes + predicted.flatten()
        counts = torch.bincount(pairs, minlength=classes**2).cpu()
        return counts if self._counts is None else self._counts + counts

    @property
    def confusion(self) -> Confusion | None:
        """The confusion matrix; None if there are only values, or nothing was counted."""
        if self.classes is None or self._counts is None or not int(self._counts.sum()):
            return None
        return Confusion(self._counts.view(self.classes, self.classes).numpy().astype(np.int64))

    def values(self) -> Values:
        """All logits and targets."""
        logits, targets = zip(*self._kept, strict=True)
        return torch.cat(logits), torch.cat(targets)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Return (n, classes) of zeros and a one for each label."""
    return functional.one_hot(labels, classes).float()
