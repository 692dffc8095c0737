"""What a study says, as frozen, validated objects.

The classes check what can be known from the text alone; whether labels exist in the data or
patterns match groups of the network shows later (`dse.data`, `dse.config.resolve_space`).
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator, model_validator

from dse.config.base import Frozen, KeyedError, Ratio, as_tuple, first_duplicate
from dse.config.space import SpaceConfig
from dse.errors import ConfigError
from dse.units import exact_size, parse_duration, parse_size

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TORCHVISION = "torchvision:"
# Over all 1,797 scans scaled to 32x32, from 0 to 1.
DIGITS_MEAN = (0.3052, 0.3052, 0.3052)
DIGITS_STD = (0.3236, 0.3236, 0.3236)

Optimizer = Literal["sgd-momentum", "sgd", "adam", "adamw"]
Objective = Literal["accuracy", "peak_bytes", "inference_peak_bytes", "parameters", "macs_forward"]


def _size(value: object) -> int:
    try:
        return parse_size(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _seconds(value: object) -> float:
    try:
        return parse_duration(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _label(value: object) -> object:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if whole else value


def _path(value: object) -> object:
    return Path(value) if isinstance(value, str) else value


Bytes = Annotated[int, BeforeValidator(_size), PlainSerializer(exact_size), Field(gt=0)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]
Folder = Annotated[Path, BeforeValidator(_path)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Label = Annotated[str, BeforeValidator(_label), Field(min_length=1)]
Labels = Annotated[tuple[Label, ...], BeforeValidator(as_tuple), Field(min_length=2)]
Triple = Annotated[tuple[float, float, float], BeforeValidator(as_tuple)]
Share = Annotated[float, Field(gt=0, lt=1)]
Factory = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def _distinct_labels(labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if labels and (twice := first_duplicate(labels)):
        raise ValueError(f"names the label {twice!r} twice: take one out")
    return labels


class PretrainConfig(Frozen):
    """How the network learns the source labels of the same data before it is transferred."""

    labels: Labels | None = None
    epochs: Count = 12
    learning_rate: Positive = 0.05
    batch_size: Count = 32

    _labels = field_validator("labels")(_distinct_labels)


class NetworkConfig(Frozen):
    """The network a study starts from."""

    name: str
    weights: Annotated[str, Field(min_length=1)] = "none"
    options: dict[str, Any] = Field(default_factory=dict)
    pretrain: PretrainConfig | None = Field(
        default_factory=lambda seen: PretrainConfig() if seen.get("weights") == "pretrain" else None
    )

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not Factory.fullmatch(name):
            raise ValueError(
                'is no network: write "torchvision:NAME" (as in "torchvision:mobilenet_v2") '
                'or "package.module:factory"'
            )
        return name

    @model_validator(mode="after")
    def _check_pretrain(self) -> "NetworkConfig":
        if self.pretrain is not None and self.weights != "pretrain":
            raise KeyedError(
                "pretrain",
                'is only read with network.weights = "pretrain": '
                f"take it out, or change the weights ({self.weights!r})",
            )
        return self


class DataConfig(Frozen):
    """The images a network is fine-tuned and judged on."""

    name: str
    root: Folder | None = None
    labels: Labels | None = None
    image_size: Annotated[int, Field(ge=8, le=4096)] = 32
    validation_share: Share = 0.33
    selection_share: Share = 0.25
    augment: Literal["none", "flip", "crop-flip"] = "none"
    mean: Triple = Field(
        default_factory=lambda seen: DIGITS_MEAN if seen.get("name") == "digits" else IMAGENET_MEAN
    )
    std: Triple = Field(
        default_factory=lambda seen: DIGITS_STD if seen.get("name") == "digits" else IMAGENET_STD
    )
    in_memory_limit: Bytes = 2 * 1024**3

    _labels = field_validator("labels")(_distinct_labels)

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name not in ("digits", "folder") and not Factory.fullmatch(name):
            raise ValueError(
                'is no data set: write "digits", "folder" (with data.root), "torchvision:NAME" '
                '(as in "torchvision:CIFAR10") or "package.module:factory"'
            )
        return name

    @field_validator("std")
    @classmethod
    def _check_std(cls, std: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(std) <= 0:
            raise ValueError("must be three numbers above 0")
        return std

    @model_validator(mode="after")
    def _check_root(self) -> "DataConfig":
        if self.name == "folder" and self.root is None:
            raise KeyedError(
                "root",
                'is missing: data.name = "folder" reads the folder that root names; '
                'add root = "path/to/images" or --set data.root=path/to/images',
            )
        if (
            self.root is not None
            and self.name != "folder"
            and not self.name.startswith(TORCHVISION)
        ):
            raise KeyedError("root", f"has no use with data.name = {self.name!r}: take it out")
        return self


class TrainingConfig(Frozen):
    """One training step: its scheme, optimizer and sizes, for which memory is predicted."""

    scheme: str = "full"
    batch_size: Count = 32
    optimizer: Optimizer = "sgd-momentum"
    learning_rate: Positive = 0.05
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    nesterov: bool = False
    memory_format: Literal["contiguous", "channels-last"] = "contiguous"
    threads: Annotated[int, Field(ge=0)] = 0
    device: Annotated[str, Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$")] = "cpu"

    @field_validator("scheme")
    @classmethod
    def _check_scheme(cls, scheme: str) -> str:
        if scheme not in ("full", "last", "norm", "bias") and not re.fullmatch(r"from:\S+", scheme):
            raise ValueError(
                'is no scheme: write "full", "last", "norm", "bias" or "from:MODULE" '
                '(as in "from:features.14")'
            )
        return scheme

    @model_validator(mode="after")
    def _check_nesterov(self) -> "TrainingConfig":
        if self.nesterov and self.optimizer != "sgd-momentum":
            raise KeyedError(
                "nesterov",
                'needs training.optimizer = "sgd-momentum", '
                f"not {self.optimizer!r}: change one of the two",
            )
        return self


class ProxyConfig(Frozen):
    """The short fine-tuning that stands for the full one, at its three fidelities."""

    importance: Literal["l1", "l2", "batch-norm-scale", "random"] = "l1"
    calibrate_batches: Count = 8
    short_epochs: Positive = 1.0
    full_epochs: Positive = 10.0
    full_seeds: Count = 3

    @model_validator(mode="after")
    def _check_epochs(self) -> "ProxyConfig":
        if self.short_epochs > self.full_epochs:
            raise KeyedError(
                "short_epochs",
                f"must not be above proxy.full_epochs = {self.full_epochs:g}: lower it",
            )
        return self


class SearchConfig(Frozen):
    """What the search optimises, within which budgets, and for how long."""

    sampler: Literal["tpe", "nsga2", "gp", "qmc", "random"] = "tpe"
    trials: Count = 40
    timeout: Seconds | None = None
    objectives: Annotated[tuple[Objective, ...], BeforeValidator(as_tuple)] = (
        "accuracy",
        "peak_bytes",
    )
    budgets: Annotated[tuple[Bytes, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    uniform_baselines: Annotated[tuple[Ratio, ...], BeforeValidator(as_tuple)] = (
        0.25,
        0.5,
        0.75,
        0.9,
    )
    finalists: Count = 5

    @field_validator("objectives")
    @classmethod
    def _check_objectives(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        if twice := first_duplicate(objectives):
            raise ValueError(f"names {twice!r} twice: take one out")
        for needed in ("accuracy", "peak_bytes"):
            if needed not in objectives:
                raise ValueError(f"must contain {needed!r}, which the front is drawn from: add it")
        return objectives

    @field_validator("budgets", "uniform_baselines")
    @classmethod
    def _ascending(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if (twice := first_duplicate(values)) is not None:
            raise ValueError(f"holds {twice!r} twice: take one out")
        return tuple(sorted(values))


class Study(Frozen):
    """A whole study: which network, data, space, training, proxy and search.

    Attributes:
        source_dir: The folder in which modules named by `network` and `data` are looked for, and
            to which the study file's relative paths refer.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    source_dir: Folder
    network: NetworkConfig
    data: DataConfig
    space: SpaceConfig
    training: TrainingConfig = TrainingConfig()
    proxy: ProxyConfig = ProxyConfig()
    search: SearchConfig

    @model_validator(mode="after")
    def _check_source_labels(self) -> "Study":
        pretrain, target = self.network.pretrain, self.data.labels
        if pretrain is None:
            return self
        if pretrain.labels is None and target is None:
            raise KeyedError(
                "network.pretrain.labels",
                "is missing: without data.labels nothing is left to pretrain on; name the target "
                "labels in data.labels or the source labels here",
            )
        if pretrain.labels is None:
            return self
        if target is None:
            raise KeyedError(
                "data.labels",
                "is missing: with network.pretrain.labels the target labels must be named too",
            )
        if both := sorted(set(pretrain.labels) & set(target)):
            raise KeyedError(
                "network.pretrain.labels",
                f"shares {', '.join(map(repr, both))} with data.labels: "
                "source and target labels must differ",
            )
        return self

    @property
    def meaning_digest(self) -> str:
        """Digest of all that changes a result: 16 hexadecimal digits.

        Left out are names and descriptions, where the files lie, and how long the search goes on
        (trials, timeout, finalists, uniform baselines).
        """
        return meaning_digest(self.model_dump(mode="json", exclude_none=True))


def meaning_digest(dump: Mapping[str, Any]) -> str:
    """Digest a dumped study without the keys that leave its results as they are."""
    idle = {
        "": ("name", "description", "source_dir"),
        "data": ("in_memory_limit",),
        "space": ("name", "description"),
        "search": ("trials", "timeout", "finalists", "uniform_baselines"),
    }
    kept = {key: value for key, value in dump.items() if key not in idle[""]}
    for table, keys in idle.items():
        if table:
            kept[table] = {key: value for key, value in kept[table].items() if key not in keys}
    if kept["data"]["name"].startswith(TORCHVISION):  # the root is only where downloads are kept
        kept["data"].pop("root", None)
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
