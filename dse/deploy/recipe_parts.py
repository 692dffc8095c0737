"""The parts of a bundle's recipe: preprocessing, task, sample, and the accuracy to expect."""

import math
import statistics
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dse.inputs import Kind
from dse.results.seeds import prediction_interval
from dse.step.canonical import loss_tensors
from dse.tasks.task import Task

_LARGEST_SAMPLE = 3 * 4096**2
Whole = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(ge=0, le=1)]
Score = Annotated[float, Field(le=1)]
Colours = Annotated[tuple[float, ...], Field(min_length=1, max_length=4096)]
Side = Annotated[int, Field(ge=1, lt=2**24)]
Positive = Annotated[float, Field(gt=0)]


class FrozenPart(BaseModel):
    """A part of a recipe, validated strictly."""

    # Unknown fields are allowed, so that a bundle with fields of a later release can be read.
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class Preprocessing(FrozenPart):
    """What is done with an image before the network sees it.

    Attributes:
        mean: subtracted from each channel, on the scale from 0 to 1; None for nothing.
        std: each channel is then divided by it; None for nothing.
        interpolation: how images are resized.
        crop: share of the largest part of the wanted proportions that is kept, in the middle.
        pixel_values: how the study's stored values became bytes, whose 255 is the 1 of that scale,
            as text; for example the white of 12-bit greys. Empty in bundles of older releases.
    """

    mean: Colours | None
    std: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=4096)] | None
    interpolation: str = "bilinear"
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    pixel_values: str = ""


class RecipeTask(FrozenPart):
    """What the outputs stand for, with the loss that the network is trained by.

    Attributes:
        kind: the task; see `dse.names.TASKS`.
        loss: name of the loss, or "package.module:factory".
        loss_options: keyword arguments of a factory's loss.
        label_smoothing: share of the target that is spread over all classes.
        class_weights: weight of each class; None for none.
        positive_weights: weight of each label's positive samples; None for none.
        ignore: value of pixels in a mask that are neither trained nor scored.
        mean: mean of each column, by which a regression's targets are reduced; None for nothing.
        std: deviation of each column, which they are then divided by. An output times this, plus
            the mean, is in the column's own unit.
    """

    kind: str
    loss: str
    loss_options: dict[str, Any] = Field(default_factory=dict)
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_weights: tuple[Positive, ...] | None = None
    positive_weights: tuple[Positive, ...] | None = None
    ignore: Whole = 255
    mean: tuple[float, ...] | None = None
    std: tuple[Positive, ...] | None = None

    @classmethod
    def of(cls, task: Task) -> "RecipeTask | None":
        """Describe a task; None for a classification by the plain cross-entropy."""
        if task.is_plain:
            return None
        config = task.config
        weights = [float(one) for tensor in loss_tensors(task.loss) for one in tensor.flatten()]
        return cls(
            kind=config.kind,
            loss=config.loss_name,
            loss_options=config.loss_options,
            label_smoothing=config.label_smoothing,
            class_weights=tuple(weights) if config.class_weights else None,
            positive_weights=tuple(weights) if config.positive_weights else None,
            ignore=config.ignore,
            mean=task.mean,
            std=task.std,
        )


class Expected(FrozenPart):
    """The accuracy that one more training on the same data would have.

    Attributes:
        seed_accuracies: score on the validation part for each of the study's seeds, up to 1.
        mean: their mean.
        low: lower end of the 95 % prediction interval of one more training (Student's t).
        high: its upper end.
    """

    seed_accuracies: tuple[Score, ...]
    mean: Score
    low: Score
    high: Score

    @classmethod
    def of(cls, accuracies: Sequence[float], *, least: float = 0.0) -> "Expected | None":
        """Return what is expected after these trainings; None for fewer than two.

        Args:
            accuracies: their scores.
            least: the smallest score that there is.
        """
        ends = prediction_interval(accuracies)
        if ends is None:
            return None
        low, high = (min(1.0, max(least, end)) for end in ends)
        mean = min(1.0, statistics.fmean(accuracies))
        return cls(seed_accuracies=tuple(accuracies), mean=mean, low=low, high=high)


class Sample(FrozenPart):
    """Shape and type of one sample; see `dse.inputs.InputSpec`."""

    shape: Annotated[tuple[Side, ...], Field(min_length=1, max_length=8)]
    kind: Kind = "float32"
    names: Annotated[tuple[str, ...], Field(max_length=16)] = ()
    kinds: Annotated[tuple[str, ...], Field(max_length=16)] = ()

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if math.prod(self.shape) > _LARGEST_SAMPLE:
            raise ValueError(f"one sample has more than {_LARGEST_SAMPLE:,} numbers")
        if len(self.names) != len(self.kinds):
            raise ValueError(f"{len(self.names)} names of inputs, {len(self.kinds)} types")
        if self.names and self.shape[0] != len(self.names):
            raise ValueError(f"{len(self.names)} names for {self.shape[0]} inputs")
        return self
