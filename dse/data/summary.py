"""What was understood of a study's data, as one object that every command shows."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

_MOST_CLASSES = 10  # listed one by one; of more, the smallest and the largest


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PartSummary(_Plain):
    """One part of the data.

    Attributes:
        name: "train", "selection" or "validation".
        origin: Where its images come from, such as "Training/" or "split off the training images".
        per_label: Images of each label, in output order.
    """

    name: str
    origin: str
    per_label: tuple[int, ...]

    @property
    def images(self) -> int:
        """How many images it has."""
        return sum(self.per_label)


class PassedOver(_Plain):
    """Files that aren't used, for one reason.

    Attributes:
        reason: Such as "hidden" or "not an image (.txt)".
        files: How many.
        examples: The first few, relative to the data's root.
    """

    reason: str
    files: int
    examples: tuple[str, ...] = ()


class DataSummary(_Plain):
    """What was understood of a study's data.

    Attributes:
        name: As in the study.
        place: Where the data lie or would be put; empty for data inside a package.
        labels: Target labels in output order; None where only the data would tell.
        classes: How many; None likewise.
        parts: To train, to select and to validate; empty where only the data would tell.
        passed_over: Files below the root that aren't used, by reason.
        pixel_values: How stored values become bytes; empty before the images were looked at.
        augmentation: How training images are varied.
        notes: Whatever else was decided, a line each.
        checked: Every image was read.
        to_download: The data are not there yet.
    """

    name: str
    place: str = ""
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
        """Images to train on."""
        return self._images("train")

    @property
    def selection(self) -> int | None:
        """Images that the search compares candidates by."""
        return self._images("selection")

    @property
    def validation(self) -> int | None:
        """Images that the figures are shown for."""
        return self._images("validation")

    @property
    def images(self) -> int | None:
        """All images that are used."""
        return sum(part.images for part in self.parts) if self.parts else None

    def _images(self, name: str) -> int | None:
        return next((part.images for part in self.parts if part.name == name), None)

    def lines(self) -> tuple[str, ...]:
        """Say it in lines for a terminal; names are printable, whatever they hold."""
        lines = [f"data {printable(self._title())}"]
        if self.parts:
            parts = (f"{part.name} {part.images:,} ({part.origin})" for part in self.parts)
            lines.append(f"  {printable(', '.join(parts))}")
            lines.append(f"  {printable(self._classes())}")
        lines += [f"  passed over: {printable(_passed_over(one))}" for one in self.passed_over]
        if self.pixel_values:
            lines.append(f"  pixel values: {printable(self.pixel_values)}")
        if self.augmentation:
            lines.append(f"  augmentation: {printable(self.augmentation)}")
        return (*lines, *(f"  {printable(note)}" for note in self.notes))

    def _title(self) -> str:
        place = f" in {self.place}" if self.place else ""
        known = [f"{self.classes} classes"] if self.classes is not None else []
        if self.images is not None:
            known.append(f"{self.images:,} images")
        if self.to_download:
            known.append("to be downloaded")
        return f"{self.name}{place}{': ' if known else ''}{', '.join(known)}"

    def _classes(self) -> str:
        labels = self.labels or ()
        counts = list(zip(*(part.per_label for part in self.parts), strict=True))
        listed = [
            f"{label} {'/'.join(map(str, each))}"
            for label, each in zip(labels, counts, strict=True)
        ]
        names = "/".join(part.name for part in self.parts)
        if len(listed) <= _MOST_CLASSES:
            return f"classes ({names}): {', '.join(listed)}"
        order = sorted(range(len(listed)), key=lambda number: sum(counts[number]))
        few, many = (", ".join(listed[one] for one in some) for some in (order[:3], order[-3:]))
        return f"{len(listed)} classes ({names}): fewest {few}; most {many}"


def printable(text: str) -> str:
    r"""Show a name that may hold anything: control characters and stray bytes become \x escapes."""
    escaped = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii")
        for one in escaped
    )


def _passed_over(one: PassedOver) -> str:
    examples = f", such as {', '.join(one.examples[:2])}" if one.examples else ""
    return f"{one.files:,} {'file' if one.files == 1 else 'files'}: {one.reason}{examples}"


def part_summary(name: str, origin: str, targets: Sequence[int], *, classes: int) -> PartSummary:
    """Count a part's images by label.

    Args:
        name: Of the part.
        origin: Where its images come from.
        targets: Label number of each image.
        classes: How many labels there are.
    """
    counts = [0] * classes
    for target in targets:
        counts[target] += 1
    return PartSummary(name=name, origin=origin, per_label=tuple(counts))
