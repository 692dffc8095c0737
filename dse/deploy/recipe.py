"""The recipe of a bundle: how its network was made, and everything needed to rebuild it."""

import math
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dse.candidate import Candidate, with_recipe
from dse.config import Study, TaskConfig
from dse.config.fields import Count, ImageSize, Scheme
from dse.config.space import NamedGroup
from dse.data import DataParts
from dse.errors import ExportError
from dse.inputs import InputSpec, Kind
from dse.measures import Measure, measure_of
from dse.names import TASK_OUTPUTS, Outputs
from dse.networks.portable import portable
from dse.results.seeds import prediction_interval
from dse.step.canonical import loss_tensors
from dse.step.settings import StepSettings
from dse.tasks.task import Task, TaskRequest, make_task, plain_task
from dse.trust.files import read_regular

RECIPE_VERSION = 2
PACKAGES = ("dse", "safetensors", "torch", "torchvision")
_MOST_RECIPE_BYTES = 4 * 2**20
_LARGEST = 2**31
_LARGEST_SAMPLE = 3 * 4096**2
_LONGEST_TEXT = 80  # maximum length of a recipe's text in an error message
Whole = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(ge=0, le=1)]
Score = Annotated[float, Field(le=1)]
Colours = Annotated[tuple[float, ...], Field(min_length=1, max_length=4096)]
Side = Annotated[int, Field(ge=1, lt=2**24)]
Positive = Annotated[float, Field(gt=0)]


class _Frozen(BaseModel):
    # Unknown fields are allowed, so that a bundle with fields of a later release can be read.
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class Preprocessing(_Frozen):
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


class RecipeTask(_Frozen):
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


class Expected(_Frozen):
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


class Sample(_Frozen):
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


class Recipe(_Frozen):
    """How a network was made, and everything needed to rebuild it (docs/schemas/recipe-2.json).

    Attributes:
        channels: kept channels of every channel group, in execution order.
        weights: the weights it started from; for a file, its name.
        importance: the criterion by which channels were chosen.
        reconstruct: whether layers that read pruned channels were refitted by least squares.
        recovery: aim of the training before the transfer; None if there was none.
        input: shape and type of one sample; None for square images of three colours.
        labels: labels in the order of the outputs.
        task: what the outputs stand for; None for a classification by the plain cross-entropy.
        accuracy: accuracy of the reloaded bundle on the validation part, 0 to 1; of other tasks
            than classification the score by the study's metric, up to 1.
        metric: the study's metric.
        metric_range: its values that are worth nothing and everything, whose scores are 0 and 1.
        scores: all metrics of the reloaded bundle on the validation part, by name, in their units.
        recalls: recall of each label on the validation part, in the order of the outputs; None for
            a label without images. Empty, like `scores`, in bundles of older releases.
        peak_bytes: predicted peak memory of one training step.
        measured_peak_bytes: the same as a real step held it on the machine of the export.
        unpruned_peak_bytes: predicted peak of the unpruned network's step.
        ram_bytes: bytes that a step may hold, where the export was given a RAM size or a device.
        fine_tuned: whether the weights were fine-tuned; otherwise they are where that begins.
        trained: names of the parameters that train.
        evaluating: modules that stay in evaluation mode while the others train; the network itself
            has the empty name.
        checkpointed: blocks whose activations are computed again in the backward pass.
        head: the output layer, if it may be replaced by one with another number of outputs.
        augment: augmentation of training images.
        threads: CPU threads of the study; 0 if they were chosen by the free cores.
        engine: what runs the step; see `StepSettings`.
        plan: what each block of a lean step does; None for stock PyTorch.
        expected: accuracies of this candidate's trainings with the study's seeds; None if it was
            not among the finalists.
        accuracy_interval: Wilson's 95 % interval of `accuracy`, from the number of images.
        digests: SHA-256 of the bundle's other files, and digests of candidate, study and memory
            model.
        versions: versions of the packages it was made with.
    """

    version: Literal[1, 2] = 2
    network: str
    options: dict[str, Any]
    classes: int = Field(ge=1, lt=_LARGEST)
    weights: str
    channels: dict[str, Annotated[Count, Field(lt=_LARGEST)]]
    trial: Whole | None
    scheme: Scheme
    optimizer: str
    learning_rate: float
    weight_decay: float
    nesterov: bool
    epochs: float
    batch_size: Whole
    image_size: ImageSize
    input: Sample | None = None
    memory_format: str
    accumulate: Annotated[Count, Field(lt=_LARGEST)] = 1
    checkpointing: str = "none"
    precision: str = "float32"
    engine: str = "stock"
    plan: dict[str, Any] | None = None
    foreach: bool = False
    fused: bool = False
    optimizer_in_backward: bool = False
    importance: str = "l1"
    reconstruct: bool = False
    recovery: str | None = None
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    peak_bytes: Whole
    measured_peak_bytes: Whole | None = None
    unpruned_peak_bytes: Whole | None = None
    ram_bytes: Whole | None = None
    fine_tuned: bool = True
    trained: tuple[str, ...] = ()
    evaluating: tuple[str, ...] = ()
    checkpointed: tuple[str, ...] = ()
    head: str | None = None
    augment: str = "none"
    threads: Whole = 0
    expected: Expected | None = None
    accuracy_interval: tuple[Share, Share] | None = None
    convention: str
    task: RecipeTask | None = None
    accuracy: Score
    metric: str = "accuracy"
    metric_range: tuple[float, float] = (0.0, 1.0)
    scores: dict[str, float] = Field(default_factory=dict)
    recalls: tuple[Share | None, ...] = ()
    seed: Whole
    versions: dict[str, str]
    digests: dict[str, str]

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if len(self.labels) != self.classes:
            raise ValueError(f"{len(self.labels)} labels for {self.classes} outputs")
        return self

    @property
    def measure(self) -> Measure:
        """How scores are written in the metric's own unit."""
        return measure_of(self.metric, self.metric_range)

    def build_task(self, *, search_path: Path | None = None) -> Task:
        """Return the task of the outputs, by which a training step computes its loss.

        Raises:
            ConfigError: if a factory's loss can't be used.
        """
        own = self.task
        if own is None:
            return plain_task(self.classes)
        fields = own.model_dump(exclude={"mean", "std"}, exclude_none=True)
        request = TaskRequest(config=TaskConfig(**fields), search_path=search_path)
        return make_task(request, outputs=self.classes, inputs=self.input_spec)

    @property
    def outputs(self) -> Outputs:
        """Whether the network returns a vector for each sample, or maps."""
        return TASK_OUTPUTS.get(self.task.kind, "vector") if self.task else "vector"

    @property
    def weights_file(self) -> str:
        """Name of the file with the weights."""
        return "model.safetensors" if self.version == 1 else "weights.safetensors"

    @property
    def input_spec(self) -> InputSpec:
        """Shape and type of one sample."""
        if self.input is None:
            return InputSpec.image(self.image_size)
        return InputSpec(**self.input.model_dump())

    @classmethod
    def of(
        cls,
        study: Study,
        candidate: Candidate,
        *,
        groups: Sequence[NamedGroup],
        data: DataParts,
        seed: int,
        peak_bytes: int,
        convention: str,
        memory_model: str,
        trial: int | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> Self:
        """Describe a candidate that was fine-tuned in full.

        Scores, recalls and the digest of the weights are filled in when the bundle is written.

        Args:
            study: the study of the candidate's run.
            candidate: the candidate.
            groups: channel groups of the unpruned network.
            data: the data that it was trained on, at the candidate's image size.
            seed: seed of the training.
            peak_bytes: predicted peak memory of one training step.
            convention: how the peak is counted.
            memory_model: digest of the memory model of the candidate's step.
            trial: number of its trial; None for a baseline.
            more: further fields of the recipe.

        Raises:
            CandidateError: if the candidate doesn't fit the groups.
        """
        plain = data.input_spec == InputSpec.image(data.image_size)
        own, pruned = with_recipe(study, candidate), bool(candidate.channels)
        step = StepSettings.of(own.training)
        stored = [field.name for field in fields(step) if field.name in cls.model_fields]
        kept = candidate.kept(groups)
        name, options = portable(study.network.name, study.network.options, folder=study.source_dir)
        return cls(
            **{name: getattr(step, name) for name in stored},
            network=name,
            options=options,
            weights=study.network.weights_name,
            classes=data.classes,
            channels={group.name: count for group, count in zip(groups, kept, strict=True)},
            trial=trial,
            learning_rate=own.training.learning_rate,
            epochs=own.proxy.full_epochs,
            batch_size=own.training.batch_size,
            image_size=data.image_size,
            input=None if plain else Sample(**asdict(data.input_spec)),
            importance=own.proxy.importance,
            reconstruct=own.proxy.reconstruct and pruned,
            recovery=study.recovery.aim if study.recovery and pruned else None,
            preprocessing=Preprocessing(
                mean=data.mean,
                std=data.std,
                interpolation=own.data.interpolation,
                crop=own.data.crop,
                pixel_values=data.summary.pixel_values if data.summary else "",
            ),
            labels=data.labels,
            peak_bytes=peak_bytes,
            convention=convention,
            accuracy=0.0,
            task=RecipeTask.of(data.task),
            metric=study.metric,
            metric_range=data.task.range_of(study.metric),
            seed=seed,
            versions={"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
            digests={
                "candidate": candidate.digest,
                "study": study.meaning_digest,
                "memory_model": memory_model,
            },
            augment=data.train.augment,
            threads=own.training.threads,
            **(more or {}),
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a recipe file.

        Raises:
            ExportError: if it is missing, a link, too large, damaged, or of a newer version.
        """
        try:
            text = read_regular(path, most_bytes=_MOST_RECIPE_BYTES).decode("utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ExportError(f"{path.parent} is not a bundle: it has no {path.name}") from error
        except OSError as error:
            raise ExportError(f"{path} can't be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ExportError(f"{path} is damaged: it is not UTF-8 text") from error
        found = _version(text)
        if found is not None and found > RECIPE_VERSION:
            raise ExportError(
                f"{path} has version {found}, this release reads up to {RECIPE_VERSION}: update dse"
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = _short(".".join(map(str, first["loc"])))
            reason = _short(first["msg"].removeprefix("Value error, "))
            where = f"{place}: " if place else ""
            raise ExportError(f"{path} is damaged: {where}{reason}") from error


def objection_to_task(recipe: Recipe) -> str | None:
    """Return why a recipe's loss may not be computed if it is untrusted; None if it may."""
    if recipe.task is None or ":" not in recipe.task.loss:
        return None
    return f"task.loss = {recipe.task.loss!r} runs code: trust it if you trust whoever made it"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


class _Versioned(BaseModel):
    version: Whole


def _version(text: str) -> int | None:
    try:
        return _Versioned.model_validate_json(text).version
    except ValidationError:
        return None  # the full validation reports the error
