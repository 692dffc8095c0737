"""A study's task, with everything that training and scoring need of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.config import Study, TaskConfig
from dse.errors import ConfigError
from dse.inputs import InputSpec
from dse.measures import Measure, measure_of
from dse.metrics import Confusion
from dse.names import TASK_METRICS
from dse.step.canonical import Loss, classification_loss
from dse.tasks.kinds import TASKS, TaskKind, worthless_errors
from dse.tasks.losses import LOSSES, TaskLoss, at_size_of, weights_for
from dse.tasks.metrics import METRICS, Tally
from dse.tasks.own import OwnMetric, own_loss, own_metric

_PLAIN = TaskConfig()
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of the training targets.

    Attributes:
        counts: samples or pixels of each class, (outputs,); None for values.
        values: targets as they are stored, (n, outputs) float32; None for classes.
    """

    counts: Tensor | None = None
    values: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A network's metrics on one part of the data.

    Attributes:
        values: each metric in its own unit, by name.
        confusion: confusion matrix of the samples; None for other tasks than classification.
    """

    values: Mapping[str, float]
    confusion: Confusion | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What a network's outputs stand for.

    Attributes:
        config: the study's `[task]`.
        outputs: number of classes, labels or columns.
        metric: name of the metric of all scores.
        measures: how the scores of each metric are written, by name.
        loss: loss of the network's outputs and the targets, as a training step computes it.
        target: shape and type of one sample's target.
        mean: mean of each column that a regression's targets are reduced by, (outputs,).
        std: standard deviation of each column, which they are then divided by.
        own: the user's own metric; None for the task's.
    """

    config: TaskConfig
    outputs: int
    metric: str
    measures: Mapping[str, Measure]
    loss: Loss = field(repr=False)
    target: InputSpec
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    own: OwnMetric | None = None

    @property
    def kind(self) -> TaskKind:
        """The kind of the task."""
        return TASKS[self.config.kind]

    @property
    def measure(self) -> Measure:
        """How scores by the task's metric are written."""
        return self.measures[self.metric]

    @property
    def chance(self) -> float:
        """Score that is worth nothing."""
        return 0.0 if self.own else self.kind.chance(self.metric, self.outputs)

    @property
    def is_plain(self) -> bool:
        """Whether it is a classification with the plain cross-entropy."""
        return self.loss is classification_loss

    def on(self, device: str | torch.device) -> Loss:
        """Return the loss with its weights on a device."""
        return self.loss.to(device) if isinstance(self.loss, nn.Module) else self.loss

    def total(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch's logits, times the number of its samples."""
        if self.is_plain:
            return functional.cross_entropy(logits, targets, reduction="sum")
        return self.loss(logits, targets) * len(targets)

    def tally(self) -> Tally:
        """Return what collects the outputs on a part of the data."""
        form = self.kind.form
        return Tally(
            classes=None if form == "values" else self.outputs,
            ignore=self.config.ignore if form == "mask" else None,
            keeps=self.own is not None,
            unscaled=self.unscaled,
        )

    def add(self, tally: Tally, logits: Tensor, targets: Tensor) -> None:
        """Add one batch to a tally."""
        tally.add(at_size_of(targets, logits), targets)

    def figures(self, tally: Tally) -> Figures:
        """Return all metrics of the outputs that were collected."""
        confusion, values = tally.confusion, {}
        for name in TASK_METRICS[self.config.kind]:
            metric = METRICS[name]
            if metric.of_counts is not None:
                values[name] = metric.of_counts(confusion) if confusion else 0.0
            elif metric.of_values is not None:
                values[name] = metric.of_values(*tally.values())
        if self.own is not None:
            values[self.metric] = self._checked(self.own(*tally.values()))
        samples = confusion if self.kind.form == "class" else None
        return Figures(values=values, confusion=samples)

    def _checked(self, value: float) -> float:
        """Return a value of the user's own metric that is no better than its ideal.

        Raises:
            ConfigError: if it is, by more than rounding.
        """
        measure = self.measure
        if measure.score(value) > 1 + _ROUNDING:
            raise ConfigError(
                f"task.metric = {self.metric!r} is {value:g}, better than its ideal "
                f"{measure.ideal:g}: give task.metric_range, first what is worth nothing, then the "
                "ideal"
            )
        return measure.ideal if measure.score(value) > 1 else value

    def unscaled(self, values: Tensor) -> Tensor:
        """Bring outputs or targets of a regression, (n, outputs), to the columns' own units."""
        if self.mean is None or self.std is None:
            return values
        return values * torch.tensor(self.std) + torch.tensor(self.mean)

    def scaled(self, values: Tensor) -> Tensor:
        """Bring targets, (n, outputs), to the scale that the network is trained on."""
        if self.mean is None or self.std is None:
            return values
        return (values - torch.tensor(self.mean)) / torch.tensor(self.std)

    def range_of(self, metric: str) -> tuple[float, float]:
        """Return a metric's values that are worth nothing and everything."""
        return self.measures[metric].worthless, self.measures[metric].ideal


@dataclass(frozen=True, kw_only=True)
class TaskRequest:
    """What a study says of its task.

    Attributes:
        config: its `[task]`.
        metric: name of its metric; the task's first if None.
        search_path: folder in which a factory's module is searched first.
    """

    config: TaskConfig = _PLAIN
    metric: str | None = None
    search_path: Path | None = None

    @classmethod
    def of(cls, study: Study) -> "TaskRequest":
        """Return the request of a study."""
        return cls(config=study.task, metric=study.metric, search_path=study.source_dir)


PLAIN = TaskRequest()


def make_task(
    request: TaskRequest, *, outputs: int, inputs: InputSpec, evidence: Evidence | None = None
) -> Task:
    """Build a task.

    Args:
        request: what the study says of it.
        outputs: number of the network's outputs: classes, labels or columns.
        inputs: shape and type of one sample.
        evidence: of the training targets; None if they haven't been read, for memory alone.

    Raises:
        ConfigError: if a factory's loss or metric can't be used, or weights don't fit the outputs.
    """
    config, evidence, search_path = request.config, evidence or Evidence(), request.search_path
    kind = TASKS[config.kind]
    metric = request.metric or config.metric or TASK_METRICS[config.kind][0]
    own = ":" in metric
    target = kind.target(outputs, inputs)
    mean, std = _scales(config, evidence)
    return Task(
        config=config,
        outputs=outputs,
        metric=metric,
        measures=_measures(config, metric, evidence),
        loss=_loss(config, target, evidence, outputs=outputs, search_path=search_path),
        target=target,
        mean=mean,
        std=std,
        own=own_metric(metric, search_path=search_path) if own else None,
    )


def step_task(study: Study, *, outputs: int, inputs: InputSpec) -> Task:
    """Return a study's task as far as a step's memory depends on it, without its data."""
    return make_task(TaskRequest.of(study), outputs=outputs, inputs=inputs)


def plain_task(classes: int) -> Task:
    """Return the classification of some classes, with cross-entropy and accuracy."""
    return make_task(PLAIN, outputs=classes, inputs=InputSpec(shape=()))


def example_targets(task: Task, batch_size: int) -> Tensor:
    """Return targets for a step on noise: classes in turn, or zeros and ones in turn."""
    found = task.target.example(batch_size)
    turns = 2 if found.is_floating_point() else task.outputs
    return (torch.arange(found.numel()) % turns).view_as(found).to(found.dtype)


def _measure(config: TaskConfig, metric: str, worthless: float | None) -> Measure:
    if config.metric_range is not None and metric == config.metric:
        return measure_of(metric, config.metric_range)
    return measure_of(metric, None if worthless is None else (worthless, 0.0))


def _measures(config: TaskConfig, metric: str, evidence: Evidence) -> dict[str, Measure]:
    names = dict.fromkeys((*TASK_METRICS[config.kind], metric))
    values = evidence.values
    return {
        name: _measure(config, name, None if values is None else worthless_errors(name, values))
        for name in names
    }


def _scales(
    config: TaskConfig, evidence: Evidence
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return the mean and the deviation of a regression's columns; None to leave them."""
    if config.kind != "regression" or not config.standardise or evidence.values is None:
        return None, None
    values = evidence.values.double()
    std = values.std(dim=0, correction=0)
    std[std == 0] = 1.0
    return tuple(values.mean(dim=0).float().tolist()), tuple(std.float().tolist())


def _loss(
    config: TaskConfig,
    target: InputSpec,
    evidence: Evidence,
    *,
    outputs: int,
    search_path: Path | None,
) -> Loss:
    if ":" in config.loss_name:
        criterion, source = own_loss(
            config.loss_name, options=config.loss_options, search_path=search_path
        )
        key = None if source is None else _key(config, target, source)
        return TaskLoss(criterion, target=target, key=key)
    plain = not (config.label_smoothing or config.class_weights)
    if config.kind == "classification" and plain:
        return classification_loss
    weights = weights_for(config, evidence.counts, outputs=outputs)
    if weights is not None and len(weights) != outputs:
        name = "class_weights" if config.class_weights else "positive_weights"
        raise ConfigError(
            f"task.{name} has {len(weights)} numbers, and the data {outputs} labels: give one for "
            "each"
        )
    build = LOSSES[config.loss_name].build
    return TaskLoss(build(config, weights), target=target, key=_key(config, target, ""))


def _key(config: TaskConfig, target: InputSpec, source: str) -> str:
    weighted = bool(config.class_weights or config.positive_weights)
    known: dict[str, Any] = {
        "kind": config.kind,
        "loss": [config.loss_name, config.loss_options, source],
        "smoothed": config.label_smoothing > 0,
        "weighted": weighted,
        "target": target.to_json(),
    }
    return json.dumps(known, sort_keys=True, default=str)
