"""The recipe of a bundle: how its network was made, and everything needed to rebuild it."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from dse.candidate import Candidate, with_recipe
from dse.config import Study, TaskConfig
from dse.config.fields import Blocks, Count, ImageSize, Scheme
from dse.config.space import NamedGroup
from dse.data import DataParts
from dse.deploy.recipe_parts import (
    Expected,
    FrozenPart,
    Preprocessing,
    RecipeTask,
    Sample,
    Score,
    Share,
    Whole,
)
from dse.errors import ExportError
from dse.inputs import InputSpec
from dse.measures import Measure, measure_of
from dse.names import TASK_OUTPUTS, Outputs
from dse.networks.portable import portable
from dse.step.settings import StepSettings
from dse.tasks.task import Task, TaskRequest, make_task, plain_task
from dse.trust.files import read_regular

RECIPE_VERSION = 2
PACKAGES = ("dse", "safetensors", "torch", "torchvision")
_MOST_RECIPE_BYTES = 4 * 2**20
_LARGEST = 2**31
_LONGEST_TEXT = 80  # maximum length of a recipe's text in an error message


class Recipe(FrozenPart):
    """How a network was made, and everything needed to rebuild it (docs/schemas/recipe-2.json).

    Attributes:
        channels: kept channels of every channel group, in execution order.
        drop: residual blocks that are left out, as in "features.3,features.5"; None for none.
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
        transforms: transforms of torchvision.transforms.v2 that augment them, as tables of a name
            and options.
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
    drop: Blocks | None = None
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
    transforms: tuple[dict[str, Any], ...] = ()
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
            drop=candidate.drop,
            trial=trial,
            learning_rate=own.training.learning_rate,
            epochs=own.proxy.full_epochs,
            batch_size=own.training.batch_size,
            image_size=data.image_size,
            input=None if plain else Sample(**asdict(data.input_spec)),
            importance=own.proxy.importance,
            reconstruct=own.proxy.reconstruct and pruned,
            recovery=study.recovery.aim if study.recovery and (pruned or candidate.drop) else None,
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
            transforms=own.data.transforms or (),
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
