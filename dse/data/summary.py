"""A summary of a study's data, which every command shows."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Floats = npt.NDArray[np.float32]

_NOUNS = {
    "classification": "class",
    "multi-label": "label",
    "regression": "column",
    "segmentation": "class",
}
_MOST_CLASSES = 10  # more classes than this are not listed one by one


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PartSummary(_Plain):
    """One part of the data.

    Attributes:
        name: "train", "selection" or "validation".
        origin: origin of its images, such as "Training/" or "split off the training images".
        per_label: number of images of each label, in output order; empty if images have values.
        count: number of images; None if they are the sum over the labels.
    """

    name: str
    origin: str
    per_label: tuple[int, ...]
    count: int | None = None

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(self.per_label) if self.count is None else self.count


class PassedOver(_Plain):
    """Files that aren't used, for one reason.

    Attributes:
        reason: such as "hidden" or "not an image (.txt)".
        files: number of files.
        examples: the first few, relative to the data's root.
    """

    reason: str
    files: int
    examples: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The number of files, the reason and two examples."""
        examples = f", such as {', '.join(self.examples[:2])}" if self.examples else ""
        return f"{counted(self.files, 'file')}: {self.reason}{examples}"


class DataSummary(_Plain):
    """How a study's data were understood.

    Attributes:
        name: name in the study.
        place: location of the data, present or future; empty for data inside a package.
        task: what the labels are for.
        labels: target labels, or columns, in output order; None if only the data determine them.
        classes: number of labels; None likewise.
        parts: training, selection and validation part; empty if only the data determine them.
        passed_over: files below the root that aren't used, by reason.
        pixel_values: how stored values become bytes; empty before the images were read.
        augmentation: how training images are augmented.
        notes: other decisions, one line each.
        checked: whether every image was read.
        to_download: whether the data have yet to be downloaded.
    """

    name: str
    place: str = ""
    task: str = "classification"
    labels: tuple[str, ...] | None = None
    classes: int | None = None
    parts: tuple[PartSummary, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    pixel_values: str = ""
    augmentation: str = ""
    notes: tuple[str, ...] = ()
    checked: bool = False
    to_download: bool = False

    @property
    def train(self) -> int | None:
        """Number of training images."""
        return self._images("train")

    @property
    def selection(self) -> int | None:
        """Number of images that the search scores candidates on."""
        return self._images("selection")

    @property
    def validation(self) -> int | None:
        """Number of images that reported figures are from."""
        return self._images("validation")

    @property
    def images(self) -> int | None:
        """Number of all images that are used."""
        return sum(part.images for part in self.parts) if self.parts else None

    def _images(self, name: str) -> int | None:
        return next((part.images for part in self.parts if part.name == name), None)

    def lines(self) -> tuple[str, ...]:
        """Return the summary as lines for a terminal, with unprintable characters escaped."""
        lines = [f"data {printable(self._title())}"]
        if self.parts:
            parts = (f"{part.name} {part.images:,} ({part.origin})" for part in self.parts)
            lines.append(f"  {printable(', '.join(parts))}")
            lines.append(f"  {printable(self._classes())}")
        lines += [f"  passed over: {printable(one.text)}" for one in self.passed_over]
        if self.pixel_values:
            lines.append(f"  pixel values: {printable(self.pixel_values)}")
        if self.augmentation:
            lines.append(f"  augmentation: {printable(self.augmentation)}")
        return (*lines, *(f"  {printable(note)}" for note in self.notes))

    def _title(self) -> str:
        place = f" in {self.place}" if self.place else ""
        known = [self._counted_outputs] if self.classes is not None else []
        if self.images is not None:
            known.append(counted(self.images, "image"))
        if self.to_download:
            known.append("to be downloaded")
        return f"{self.name}{place}{': ' if known else ''}{', '.join(known)}"

    @property
    def outputs_text(self) -> str:
        """Number of the outputs with their noun, such as "10 classes" or "2 columns"."""
        return f"? {_plural(self.noun)}" if self.classes is None else self._counted_outputs

    @property
    def _counted_outputs(self) -> str:
        return counted(self.classes or 0, self.noun)

    @property
    def noun(self) -> str:
        """What an output stands for, such as "class"."""
        return _NOUNS.get(self.task, "output")

    def _classes(self) -> str:
        labels = self.labels or ()
        if not any(part.per_label for part in self.parts):
            more = f" and {len(labels) - _MOST_CLASSES} more" if labels[_MOST_CLASSES:] else ""
            return f"{_plural(self.noun)}: {', '.join(labels[:_MOST_CLASSES])}{more}"
        counts = list(zip(*(part.per_label for part in self.parts), strict=True))
        listed = [
            f"{label} {'/'.join(map(str, each))}"
            for label, each in zip(labels, counts, strict=True)
        ]
        names = "/".join(part.name for part in self.parts)
        if len(listed) <= _MOST_CLASSES:
            return f"{_plural(self.noun)} ({names}): {', '.join(listed)}"
        order = sorted(range(len(listed)), key=lambda number: sum(counts[number]))
        few, many = (", ".join(listed[one] for one in some) for some in (order[:3], order[-3:]))
        return f"{len(listed)} {_plural(self.noun)} ({names}): fewest {few}; most {many}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 image" and "1,200 images"."""
    return f"{number:,} {noun if number == 1 else _plural(noun)}"


def _plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def printable(text: str) -> str:
    r"""Return text with control characters and undecodable bytes as \x escapes."""
    escaped = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii")
        for one in escaped
    )


def values_summary(name: str, origin: str, values: Floats, *, positives: bool) -> PartSummary:
    """Count a part's images, and of labels those that have each.

    Args:
        name: name of the part.
        origin: origin of its images.
        values: values of each image, (n, labels).
        positives: whether these are labels, as 0 and 1.
    """
    per_label = tuple(int(one) for one in (values > 0).sum(axis=0)) if positives else ()
    return PartSummary(name=name, origin=origin, per_label=per_label, count=len(values))


def part_summary(name: str, origin: str, targets: Sequence[int], *, classes: int) -> PartSummary:
    """Count a part's images by label.

    Args:
        name: name of the part.
        origin: origin of its images.
        targets: label number of each image.
        classes: number of labels.
    """
    counts = [0] * classes
    for target in targets:
        counts[target] += 1
    return PartSummary(name=name, origin=origin, per_label=tuple(counts))
