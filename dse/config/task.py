"""The task that a network is fine-tuned for: its loss and its metric."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from dse.config.base import Frozen, KeyedError
from dse.config.fields import FACTORY, AsTuple, Loss, Positive, Task
from dse.names import METRICS, TASK_LOSSES, TASK_METRICS, TASK_OUTPUTS, Outputs, either, nearest

Weights = Literal["balanced"] | Annotated[tuple[Positive, ...], AsTuple, Field(min_length=1)]
Range = Annotated[tuple[float, float], AsTuple]
_LARGEST_MASK = 255


class TaskConfig(Frozen):
    """What the network's outputs stand for, how they are trained and how they are scored.

    Attributes:
        kind: the task.
        loss: name of the loss, or "package.module:factory", which returns a function of (logits,
            targets) that returns one number; None for the task's first loss.
        loss_options: keyword arguments of a factory's loss.
        label_smoothing: share of the target that is spread over all classes, for "cross-entropy".
        class_weights: weight of each class for "cross-entropy"; "balanced" weighs each by the
            inverse of its frequency among the training samples, or pixels.
        positive_weights: weight of each label's positive samples for "binary-cross-entropy";
            "balanced" takes the number of negative over that of positive samples.
        ignore: value of pixels in a mask that are neither trained nor scored.
        standardise: whether a regression is trained on columns of mean 0 and deviation 1; metrics
            are in the columns' own units either way.
        metric: name of the metric, or "package.module:factory", which returns a function of
            (logits, targets); None for the task's first metric, or `search.metric`.
        metric_range: values of a factory's metric that are worth nothing and everything; the second
            is smaller for an error.
    """

    kind: Task = "classification"
    loss: Loss | None = None
    loss_options: dict[str, Any] = Field(default_factory=dict)
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_weights: Weights | None = None
    positive_weights: Weights | None = None
    ignore: Annotated[int, Field(ge=0, le=_LARGEST_MASK)] = _LARGEST_MASK
    standardise: bool = True
    metric: str | None = None
    metric_range: Range | None = None

    @field_validator("class_weights", "positive_weights", mode="before")
    @classmethod
    def _check_weights(cls, given: object) -> object:
        numbers = given if isinstance(given, list | tuple) else ()
        sound = all(
            isinstance(one, int | float) and not isinstance(one, bool) and 0 < one < math.inf
            for one in numbers
        )
        if given in (None, "balanced") or (numbers and sound):
            return given
        raise ValueError('must be "balanced" or a positive number for each label')

    @property
    def loss_name(self) -> str:
        """The loss, whether it was named or not."""
        return self.loss or TASK_LOSSES[self.kind][0]

    @property
    def outputs(self) -> Outputs:
        """What the network returns for each sample."""
        return TASK_OUTPUTS[self.kind]

    @property
    def factories(self) -> tuple[tuple[str, str], ...]:
        """Key and name of each function that the task takes from the user's own code."""
        named = (("task.loss", self.loss), ("task.metric", self.metric))
        return tuple((key, name) for key, name in named if name is not None and ":" in name)

    @model_validator(mode="after")
    def _check_loss(self) -> "TaskConfig":
        own = self.loss is not None and ":" in self.loss
        if not own and self.loss_name not in TASK_LOSSES[self.kind]:
            fitting = either(TASK_LOSSES[self.kind], quoted=True)
            raise KeyedError(
                "loss", f'does not fit the task "{self.kind}": write {fitting}, or a factory\'s'
            )
        if self.loss_options and not own:
            raise KeyedError("loss_options", "are those of a factory's loss: take them out")
        for key, loss in (
            ("label_smoothing", "cross-entropy"),
            ("class_weights", "cross-entropy"),
            ("positive_weights", "binary-cross-entropy"),
        ):
            if getattr(self, key) and self.loss_name != loss:
                raise KeyedError(
                    key,
                    f'belongs to the loss "{loss}", and this one is "{self.loss_name}": '
                    "take it out",
                )
        return self

    @model_validator(mode="after")
    def _check_metric(self) -> "TaskConfig":
        name, known = self.metric, TASK_METRICS[self.kind]
        own = name is not None and FACTORY.fullmatch(name) is not None
        if name is not None and not own and name not in known:
            near = nearest(name, known)
            other = name in METRICS
            hint = f'; did you mean "{near}"?' if near else ""
            raise KeyedError(
                "metric",
                ("is one of another task" if other else "is not known")
                + f": write {either(known, quoted=True)}, or package.module:factory{hint}",
            )
        if self.metric_range is None:
            return self
        if not own:
            raise KeyedError("metric_range", "is that of a factory's metric: take it out")
        if self.metric_range[0] == self.metric_range[1]:
            raise KeyedError(
                "metric_range", "must be two different numbers, the worthless value first"
            )
        return self
