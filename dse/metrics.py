"""How well a classifier does, computed from its confusion matrix and from nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.names import Metric

TITLES: dict[Metric, str] = {
    "accuracy": "accuracy",
    "balanced-accuracy": "balanced accuracy",
    "macro-f1": "macro F1",
}
"""What tables, axes and messages call each metric, inside a sentence."""

SHORT_TITLES: dict[Metric, str] = {
    "accuracy": "Acc.",
    "balanced-accuracy": "Bal. acc.",
    "macro-f1": "Macro F1",
}
"""The same for the head of a column."""

_OBJECTIVES = {
    "peak_bytes": "peak (bytes)",
    "inference_peak_bytes": "inference peak (bytes)",
    "parameters": "parameters",
    "macs_forward": "multiply-adds (forward)",
}


def objective_title(objective: str, *, metric: Metric) -> str:
    """Name an objective of a study for people, with its unit.

    Args:
        objective: as in `search.objectives`.
        metric: what the objective "accuracy" is.
    """
    return TITLES[metric] if objective == "accuracy" else _OBJECTIVES[objective]


_MATRIX = 2  # dimensions


@dataclass(frozen=True, eq=False)
class Confusion:
    """How many images of each class were taken for which class.

    Attributes:
        counts: (classes, classes) int64; rows are the true classes, columns the predicted ones.
    """

    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuse what is no matrix of counts, or counts no image."""
        counts = self.counts
        if counts.ndim != _MATRIX or counts.shape[0] != counts.shape[1]:
            raise ValueError(f"a confusion matrix is square, not of shape {counts.shape}")
        if counts.size == 0 or counts.min() < 0 or not counts.sum():
            raise ValueError("a confusion matrix counts at least one image, and none negatively")

    def __eq__(self, other: object) -> bool:
        """Compare the counts."""
        return isinstance(other, Confusion) and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash either

    @classmethod
    def of(cls, true: ArrayLike, predicted: ArrayLike, *, classes: int) -> "Confusion":
        """Count pairs of true and predicted classes.

        Args:
            true: (n,) positions among the classes.
            predicted: (n,) likewise.
            classes: how many there are.

        Raises:
            ValueError: there are no images, or a position is outside 0 to classes - 1.
        """
        rows, columns = np.asarray(true, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
        both = np.concatenate([rows, columns])
        if both.size and (both.min() < 0 or both.max() >= classes):
            raise ValueError(f"positions must lie between 0 and {classes - 1}")
        counts = np.bincount(rows * classes + columns, minlength=classes**2)
        return cls(counts.reshape(classes, classes).astype(np.int64))

    @property
    def images(self) -> tuple[int, ...]:
        """Images of each class."""
        return tuple(self.counts.sum(axis=1).tolist())

    @property
    def correct(self) -> tuple[int, ...]:
        """Images of each class that were taken for it."""
        return tuple(self.counts.diagonal().tolist())

    def score(self, metric: Metric) -> float:
        """Return a metric, from 0 to 1.

        Classes without an image don't count towards balanced accuracy, and those that are neither
        there nor predicted don't count towards macro F1.
        """
        right = self.counts.diagonal().astype(np.float64)
        true, predicted = self.counts.sum(axis=1), self.counts.sum(axis=0)
        match metric:
            case "accuracy":
                return float(right.sum() / true.sum())
            case "balanced-accuracy":
                there = true > 0
                return float(np.mean(right[there] / true[there]))
            case "macro-f1":
                there = true + predicted > 0
                return float(np.mean(2 * right[there] / (true + predicted)[there]))


def recalls(correct: Sequence[Sequence[int]], images: Sequence[int]) -> tuple[float | None, ...]:
    """Return each class's recall, the mean over several trainings.

    Args:
        correct: for each training, the images of each class that were put right.
        images: of each class.

    Returns:
        From 0 to 1; None for a class without images.

    Raises:
        ValueError: numbers of classes differ, or there is no training.
    """
    right = np.array(correct, dtype=np.float64)
    if right.ndim != _MATRIX or right.shape[1] != len(images):
        raise ValueError(f"correct has shape {right.shape}, there are {len(images)} classes")
    means = right.mean(axis=0)
    return tuple(
        float(mean / count) if count else None for mean, count in zip(means, images, strict=True)
    )
