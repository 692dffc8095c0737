"""Metrics of a classifier, computed from its confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MATRIX = 2  # dimensions


@dataclass(frozen=True, eq=False)
class Confusion:
    """Number of images of each class that were classified as each class.

    Attributes:
        counts: (classes, classes) int64; rows are the true classes, columns the predicted ones.
    """

    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Reject anything but a square matrix of counts with at least one image."""
        counts = self.counts
        if counts.ndim != _MATRIX or counts.shape[0] != counts.shape[1]:
            raise ValueError(f"a confusion matrix must be square, not of shape {counts.shape}")
        if counts.size == 0 or counts.min() < 0 or not counts.sum():
            raise ValueError("a confusion matrix needs counts of 0 or more, and at least one image")

    def __eq__(self, other: object) -> bool:
        """Compare the counts."""
        return isinstance(other, Confusion) and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash either

    @classmethod
    def of(cls, true: ArrayLike, predicted: ArrayLike, *, classes: int) -> "Confusion":
        """Count pairs of true and predicted classes.

        Args:
            true: indices of the true classes, shape (n,).
            predicted: indices of the predicted classes, shape (n,).
            classes: number of classes.

        Raises:
            ValueError: if there are no images, or an index is outside 0 to classes - 1.
        """
        rows, columns = np.asarray(true, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
        both = np.concatenate([rows, columns])
        if both.size and (both.min() < 0 or both.max() >= classes):
            raise ValueError(f"class indices must lie between 0 and {classes - 1}")
        counts = np.bincount(rows * classes + columns, minlength=classes**2)
        return cls(counts.reshape(classes, classes).astype(np.int64))

    @property
    def images(self) -> tuple[int, ...]:
        """Number of images of each class."""
        return tuple(self.counts.sum(axis=1).tolist())

    @property
    def correct(self) -> tuple[int, ...]:
        """Number of correctly classified images of each class."""
        return tuple(self.counts.diagonal().tolist())

    def score(self, metric: str) -> float:
        """Return a metric, from 0 to 1.

        Classes without an image don't count towards balanced accuracy. Classes that are neither
        present nor predicted don't count towards macro F1 and mean intersection over union.

        Raises:
            ValueError: if a confusion matrix has no such metric.
        """
        right = self.counts.diagonal().astype(np.float64)
        true, predicted = self.counts.sum(axis=1), self.counts.sum(axis=0)
        match metric:
            case "accuracy" | "pixel-accuracy":
                return float(right.sum() / true.sum())
            case "balanced-accuracy":
                present = true > 0
                return float(np.mean(right[present] / true[present]))
            case "macro-f1":
                met = true + predicted > 0
                return float(np.mean(2 * right[met] / (true + predicted)[met]))
            case "mean-iou":
                met = true + predicted > 0
                return float(np.mean(right[met] / (true + predicted - right)[met]))
        raise ValueError(f"a confusion matrix has no metric {metric!r}")


def recalls(correct: Sequence[Sequence[int]], images: Sequence[int]) -> tuple[float | None, ...]:
    """Return each class's recall, the mean over several trainings.

    Args:
        correct: for each training, the correctly classified images of each class.
        images: number of images of each class.

    Returns:
        Recalls from 0 to 1; None for a class without images.

    Raises:
        ValueError: if the numbers of classes differ, or there is no training.
    """
    right = np.array(correct, dtype=np.float64)
    if right.ndim != _MATRIX or right.shape[1] != len(images):
        raise ValueError(f"correct has shape {right.shape}, but there are {len(images)} classes")
    means = right.mean(axis=0)
    return tuple(
        float(mean / count) if count else None for mean, count in zip(means, images, strict=True)
    )
