"""Images of each class in each part of the data, and warnings where accuracy misleads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dse.data.summary import DataSummary

PartName = Literal["train", "selection", "validation"]

# A part is imbalanced if its smallest class has fewer images than this share of the mean class ...
_FEWEST = 1 / 3
# ... or if always predicting the largest class covers this share of the way from chance to 100 %.
_WAY = 1 / 2


@dataclass(frozen=True, kw_only=True)
class ClassImages:
    """Images of each class in each part of a data set.

    Attributes:
        labels: Names of the classes, in the order of the network's outputs.
        train: Training images of each class.
        selection: Images of each class that the search compares candidates on.
        validation: Images of each class that reported figures are measured on.
    """

    labels: tuple[str, ...]
    train: tuple[int, ...]
    selection: tuple[int, ...]
    validation: tuple[int, ...]

    @classmethod
    def of_summary(cls, summary: DataSummary | None) -> "ClassImages | None":
        """Read the counts from a data summary. None if it has none, as of other tasks."""
        if summary is None or summary.labels is None or summary.task != "classification":
            return None
        images = {part.name: part.per_label for part in summary.parts}
        if not {"train", "selection", "validation"} <= images.keys():
            return None
        return cls(
            labels=summary.labels,
            train=images["train"],
            selection=images["selection"],
            validation=images["validation"],
        )

    def of(self, part: PartName) -> tuple[int, ...]:
        """Return the number of images of each class in one part."""
        match part:
            case "train":
                return self.train
            case "selection":
                return self.selection
            case "validation":
                return self.validation

    @property
    def imbalanced(self) -> bool:
        """Whether any part is imbalanced (see `is_imbalanced`)."""
        return any(map(is_imbalanced, (self.train, self.selection, self.validation)))


def is_imbalanced(images: Sequence[int]) -> bool:
    """Whether accuracy on a part says little about its small classes.

    This is so if the smallest class has less than a third of the mean class's images, or if always
    predicting the largest class reaches half-way from chance to perfect accuracy (75 % for two
    classes, 67 % for three, 55 % for ten).

    Args:
        images: Number of images of each class, with at least one in total.
    """
    share = majority_share(images)
    chance = 1 / len(images)
    few = min(images) < _FEWEST * sum(images) / len(images)
    return few or share >= chance + _WAY * (1 - chance)


def majority_share(images: Sequence[int]) -> float:
    """Return the accuracy, from 0 to 1, of always predicting the largest class."""
    return max(images) / sum(images)


def imbalance_warning(classes: ClassImages | None, *, metric: str) -> str | None:
    """Return a one-line warning if accuracy hides the small classes, otherwise None.

    Args:
        classes: Images of each class. None if unknown.
        metric: The study's metric. All but accuracy weigh classes equally.
    """
    if classes is None or metric != "accuracy" or not classes.imbalanced:
        return None
    images = classes.validation
    smallest, largest = int(np.argmin(images)), int(np.argmax(images))
    return (
        f"the classes are imbalanced: {classes.labels[smallest]!r} has {images[smallest]} of "
        f"{sum(images)} validation images, and a network that always answers "
        f"{classes.labels[largest]!r} scores {100 * majority_share(images):.1f} % accuracy; "
        'set search.metric = "balanced-accuracy" or "macro-f1" to count every class alike'
    )


def missed_warning(
    who: str, recalls: Sequence[float | None], classes: ClassImages, *, part: PartName
) -> str | None:
    """Return a one-line warning if a network classifies no image of some class correctly.

    Args:
        who: Label of the network.
        recalls: Recall of each class on the part. None for classes without images.
        classes: Images of each class.
        part: The part that the recalls were measured on.

    Returns:
        The warning, or None if every class with images has a recall above 0.
    """
    images = classes.of(part)
    missed = [number for number, recall in enumerate(recalls) if recall == 0]
    if not missed:
        return None
    named = ", ".join(f"{classes.labels[one]!r} ({images[one]})" for one in missed[:_NAMED])
    more = f" and {len(missed) - _NAMED} more" if missed[_NAMED:] else ""
    return (
        f"{who} gets none of the {part} images of {len(missed)} of {len(classes.labels)} classes "
        f"right: {named}{more}"
    )


_NAMED = 5  # largest number of classes named in one message
