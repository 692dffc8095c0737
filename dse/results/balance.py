"""How many images each class has in each part, and when accuracy says little because of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dse.data.summary import DataSummary
from dse.metrics import Metric

PartName = Literal["train", "selection", "validation"]

# A part is imbalanced where its smallest class has fewer than this share of the mean class ...
_FEWEST = 1 / 3
# ... or where one constant answer comes this far on the way from chance to all images right.
_WAY = 1 / 2


@dataclass(frozen=True, kw_only=True)
class ClassImages:
    """Images of each class in each part of a data set.

    Attributes:
        labels: names of the classes, in the order of the network's outputs.
        train: images of each class to train on.
        selection: images of each class that the search compares by.
        validation: images of each class that the shown figures are for.
    """

    labels: tuple[str, ...]
    train: tuple[int, ...]
    selection: tuple[int, ...]
    validation: tuple[int, ...]

    @classmethod
    def of_summary(cls, summary: DataSummary | None) -> "ClassImages | None":
        """Read the counts of a summary; None where it has none."""
        if summary is None or summary.labels is None:
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
        """Return the images of each class in one part."""
        match part:
            case "train":
                return self.train
            case "selection":
                return self.selection
            case "validation":
                return self.validation

    @property
    def imbalanced(self) -> bool:
        """Whether any part is imbalanced; see `is_imbalanced`."""
        return any(map(is_imbalanced, (self.train, self.selection, self.validation)))


def is_imbalanced(images: Sequence[int]) -> bool:
    """Say whether accuracy on a part says little about its small classes.

    Either the smallest class has less than a third of the mean class's images, or always giving
    the largest class comes half-way from chance to all images right (75 % for two classes, 67 %
    for three, 55 % for ten).

    Args:
        images: of each class, at least one in all.
    """
    share = majority_share(images)
    chance = 1 / len(images)
    few = min(images) < _FEWEST * sum(images) / len(images)
    return few or share >= chance + _WAY * (1 - chance)


def majority_share(images: Sequence[int]) -> float:
    """Return the accuracy of always giving the largest class, from 0 to 1."""
    return max(images) / sum(images)


def imbalance_warning(classes: ClassImages | None, *, metric: Metric) -> str | None:
    """Warn in one line that accuracy hides the small classes; None where it doesn't.

    Args:
        classes: of the data; None where they aren't known.
        metric: of the study; any but accuracy counts all classes alike.
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
    """Warn in one line that a network never gets some classes right; None where it does.

    Args:
        who: the network's label.
        recalls: of each class on the part; None for those without images.
        classes: of the data.
        part: that the recalls are for.
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


_NAMED = 5  # classes, in one line
