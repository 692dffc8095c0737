"""The configuration of a study, as frozen, validated objects.

The classes check what the text alone determines. Whether labels exist in the data, or patterns
match groups of the network, is checked later (`dse.data`, `dse.config.resolve_space`).
"""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from dse.config.base import Frozen, KeyedError
from dse.config.baselines import BaselinesConfig
from dse.config.digest import meaning_digest
from dse.config.fields import (
    FACTORY,
    AsTuple,
    Budgets,
    Count,
    Criterion,
    Distinct,
    Duration,
    FolderPath,
    ImageSize,
    Labels,
    Optimizer,
    Positive,
    Rate,
    Ratios,
    Sampler,
    Scheme,
    SearchConvention,
    Share,
    Size,
    Triple,
)
from dse.config.recovery import RecoveryConfig
from dse.config.reference import ReferenceConfig
from dse.config.space import SpaceConfig
from dse.metrics import Metric
from dse.names import (
    Augmentation,
    Checkpointing,
    MemoryFormat,
    Objective,
    Precision,
)
from dse.units import PeakShare
from dse.weight_files import is_weights_file

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Of all 1,797 scans resized to 32x32, on the scale from 0 to 1.
DIGITS_MEAN = (0.3052, 0.3052, 0.3052)
DIGITS_STD = (0.3236, 0.3236, 0.3236)


class PretrainConfig(Frozen):
    """Pretraining of the network on source labels of the same data, before it is transferred.

    Attributes:
        labels: the source labels; all labels that aren't target labels if None.
        epochs: length of the pretraining.
        learning_rate: peak learning rate.
        batch_size: images per step.
    """

    labels: Labels | None = None
    epochs: Count = 12
    learning_rate: Rate = 0.05
    batch_size: Count = 32


class NetworkConfig(Frozen):
    """The network that a study starts from.

    Attributes:
        name: "torchvision:NAME" or "package.module:factory".
        weights: "none", "pretrain", the name of torchvision weights, or a file of weights
            (.safetensors, or .pth, .pt, .bin, .ckpt, .tar as torch.save writes them).
        options: Keyword arguments of the network's constructor.
    """

    name: str
    weights: Annotated[str, Field(min_length=1)] = "none"
    options: dict[str, Any] = Field(default_factory=dict)
    pretrain: PretrainConfig | None = Field(
        default_factory=lambda seen: PretrainConfig() if seen.get("weights") == "pretrain" else None
    )

    @property
    def weights_name(self) -> str:
        """The weights without the folders of a file, which are meaningless on other machines."""
        path = Path(self.weights)
        return path.name if is_weights_file(self.weights) else self.weights

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not FACTORY.fullmatch(name):
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
    """The images that a network is fine-tuned and evaluated on.

    Attributes:
        name: "digits", "folder", "torchvision:NAME" or "package.module:factory".
        root: folder of the images, folder of a torchvision data set (downloaded if missing), or
            folder in which a factory's module is searched.
        labels: a subset of the data's labels, in the order of the network's outputs.
        image_size: side of the images in pixels.
        validation_share: share of all images, if the data have no validation part of their own.
        selection_share: share of the remaining images, on which the search scores candidates.
        augment: augmentation of training images.
        mean: mean of each colour, from 0 to 1.
        std: standard deviation of each colour, from 0 to 1.
        in_memory_limit: maximum bytes of decoded images that are held in memory.
    """

    name: str
    root: FolderPath | None = None
    labels: Labels | None = None
    image_size: ImageSize = 32
    validation_share: Share = 0.33
    selection_share: Share = 0.25
    augment: Augmentation = "none"
    mean: Triple = Field(
        default_factory=lambda seen: DIGITS_MEAN if seen.get("name") == "digits" else IMAGENET_MEAN
    )
    std: Triple = Field(
        default_factory=lambda seen: DIGITS_STD if seen.get("name") == "digits" else IMAGENET_STD
    )
    in_memory_limit: Size = 2 * 1024**3

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name not in ("digits", "folder") and not FACTORY.fullmatch(name):
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

    @field_validator("mean")
    @classmethod
    def _check_mean(cls, mean: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(mean) < 0 or max(mean) > 1:
            raise ValueError("must be three numbers from 0 to 1: divide those for bytes by 255")
        return mean

    @model_validator(mode="after")
    def _check_root(self) -> "DataConfig":
        if self.name == "folder" and self.root is None:
            raise KeyedError(
                "root",
                'is missing: data.name = "folder" reads the folder that root names; '
                'add root = "path/to/images" or --set data.root=path/to/images',
            )
        if self.name == "digits" and self.root is not None:
            raise KeyedError("root", 'has no use with data.name = "digits": take it out')
        return self

    @property
    def torchvision_name(self) -> str | None:
        """Name of the class in torchvision.datasets; None for other data."""
        prefix, _, name = self.name.partition(":")
        return name if prefix == "torchvision" else None


class TrainingConfig(Frozen):
    """The training step that memory is predicted for: scheme, optimizer and sizes.

    Attributes:
        scheme: which parameters train: "full", "last", "norm", "bias", "lite-residual",
            "from:MODULE" or "only:MODULE,MODULE".
        batch_size: images per micro-batch.
        optimizer: name of the optimizer.
        learning_rate: peak learning rate.
        weight_decay: weight decay of the optimizer.
        nesterov: whether SGD uses Nesterov momentum.
        memory_format: memory format of network and images.
        accumulate: number of micro-batches whose gradients are added up before an optimizer step.
        checkpointing: "blocks" keeps only each block's input, and computes the block again in the
            backward pass: less memory for more time.
        precision: "bf16-mixed" runs the forward pass under PyTorch's autocast to bfloat16.
        foreach: whether the optimizer updates all tensors in one call.
        fused: whether the optimizer updates each tensor in one kernel, without temporaries.
        threads: number of CPU threads; 0 uses all cores.
        device: device that the training runs on.
    """

    scheme: Scheme = "full"
    batch_size: Count = 32
    optimizer: Optimizer = "sgd-momentum"
    learning_rate: Rate = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    nesterov: bool = False
    memory_format: MemoryFormat = "contiguous"
    accumulate: Count = 1
    checkpointing: Checkpointing = "none"
    precision: Precision = "float32"
    foreach: bool = False
    fused: bool = False
    threads: Annotated[int, Field(ge=0)] = 0
    device: str = "cpu"

    @field_validator("device")
    @classmethod
    def _check_device(cls, device: str) -> str:
        if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
            raise ValueError('is no device: write "cpu", "cuda", "cuda:0" or "mps"')
        return device

    @model_validator(mode="after")
    def _check_foreach(self) -> "TrainingConfig":
        if self.foreach and self.fused:
            raise KeyedError("foreach", "doesn't go with training.fused: turn one of them off")
        return self

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
    """The short fine-tuning that predicts the full one, with its three fidelities.

    Attributes:
        importance: criterion by which channels are ranked; the least important are removed first.
            "taylor" and "fisher" are computed on training images, after the output layer was
            trained on them.
        reconstruct: whether layers that read pruned channels are refitted by least squares on
            training images to restore their outputs; needs no gradients and no labels.
        calibrate_batches: number of training batches from which batch-norm statistics are
            recomputed if pruning changed a norm's input or training changed the weights. Other
            training images decide whether they replace the network's own. 0 always keeps its own.
        short_epochs: length of the short fine-tuning.
        full_epochs: length of the full fine-tuning.
        full_seeds: number of seeds that a finalist is fine-tuned with in full.
    """

    importance: Criterion = "l1"
    reconstruct: bool = False
    calibrate_batches: Annotated[int, Field(ge=0)] = 8
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
    """What the search optimises, within which budgets, and when it stops.

    Attributes:
        sampler: sampler of the ratios: "front" (see `dse.sampling.propose`), or one of Optuna's.
        trials: number of candidates to train.
        timeout: seconds after which no new trial starts.
        objectives: names of the objectives; "accuracy" and "peak_bytes" are required.
        metric: metric behind the objective "accuracy" and all reported scores: the share of correct
            predictions ("accuracy"), the mean recall over classes ("balanced-accuracy") or the mean
            F1 score over classes ("macro-f1"); the last two weight all classes equally.
        convention: how peaks are counted: "tensors", or "allocator", which adds what the study's
            device holds beyond them (see `dse.search.device_memory`). None means "allocator" on
            CUDA and "tensors" elsewhere.
        budgets: bytes of device RAM, or shares of the unpruned network's peak in the study's own
            training step; candidates over the largest are not trained.
        uniform_baselines: ratios of the uniformly pruned baselines, ascending.
        images: number of trained images after which no new trial starts; baselines and diverged
            trainings count.
        level_window: number of last trained candidates; no new trial starts if the hypervolume rose
            by less than `level_gain` over them. None disables this.
        level_gain: share of the reference box.
        finalists: number of candidates of the front that are fine-tuned in full at the end.
        climb: share of a short fine-tuning after which a candidate is scored; it is stopped if it
            can no longer become the most accurate of those with equal or less memory. None trains
            every candidate to the end.
        gate: whether candidates that exceed every budget, or are known already, aren't trained.
        aim: whether draws are scaled to targets spread over memory, from the smallest network of
            the space to the largest budget.
        relax: whether each candidate is widened as far as its target, or else its own peak, allows.
    """

    sampler: Sampler = "front"
    trials: Count = 40
    timeout: Duration | None = None
    objectives: Annotated[tuple[Objective, ...], AsTuple, Distinct] = ("accuracy", "peak_bytes")
    metric: Metric = "accuracy"
    convention: SearchConvention | None = None
    budgets: Budgets
    uniform_baselines: Ratios = (0.25, 0.5, 0.75, 0.9)
    images: Count | None = None
    level_window: Count | None = None
    level_gain: Share = 0.005
    finalists: Count = 5
    climb: Share | None = None
    gate: bool = True
    aim: bool = True
    relax: bool = True

    @property
    def budget_bytes(self) -> tuple[int, ...]:
        """The budgets in bytes, ascending.

        Raises:
            ValueError: if some are still shares; see `with_budgets`.
        """
        if any(isinstance(budget, PeakShare) for budget in self.budgets):
            raise ValueError("shares of the unpruned peak were not resolved to bytes")
        return tuple(budget for budget in self.budgets if isinstance(budget, int))

    @model_validator(mode="after")
    def _check_climb(self) -> "SearchConfig":
        if self.climb is not None and len(self.objectives) > 2:  # noqa: PLR2004  # its two
            raise KeyedError(
                "climb",
                "judges by accuracy and peak_bytes alone, and the study has more objectives: take "
                "it out, or shorten search.objectives",
            )
        return self

    @field_validator("objectives")
    @classmethod
    def _check_objectives(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        for needed in ("accuracy", "peak_bytes"):
            if needed not in objectives:
                raise ValueError(f"must contain {needed!r}, which the front is drawn from: add it")
        return objectives


class Study(Frozen):
    """A complete study: network, data, search space and training.

    Attributes:
        name: name of the study, also of its run folder.
        description: free text.
        seed: seed of everything random.
        source_dir: folder in which modules named by `network` are searched, and that relative paths
            in the study file refer to.
        network: the network to start from.
        data: the target's images.
        space: the search space.
        recovery: training before the transfer; None for none.
        baselines: baseline methods that are scored.
        training: the training step.
        proxy: fidelities of the fine-tuning.
        search: the search.
    """

    name: str
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    source_dir: FolderPath
    network: NetworkConfig
    data: DataConfig
    space: SpaceConfig
    recovery: RecoveryConfig | None = None
    baselines: BaselinesConfig = BaselinesConfig()
    reference: ReferenceConfig = ReferenceConfig()
    training: TrainingConfig = TrainingConfig()
    proxy: ProxyConfig = ProxyConfig()
    search: SearchConfig

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ValueError(
                "must fit a folder's name: write up to 100 letters, digits, dots, dashes and "
                "underscores, the first a letter or digit"
            )
        return name

    @model_validator(mode="after")
    def _check_joint(self) -> "Study":
        whole = self.training.batch_size
        for size in self.space.joint.batch_size if self.space.joint else ():
            if whole % size:
                raise KeyedError(
                    "space.joint.batch_size",
                    f"holds {size}, which does not divide training.batch_size = {whole}: smaller "
                    "batches are added up to it",
                )
        return self

    @model_validator(mode="after")
    def _check_recovery(self) -> "Study":
        if self.recovery is not None and self.recovery.data is None and not self.network.pretrain:
            raise KeyedError(
                "recovery.data",
                "is missing: say which source images the pruned network recovers on",
            )
        return self

    @model_validator(mode="after")
    def _check_source_labels(self) -> "Study":
        pretrain, target = self.network.pretrain, self.data.labels
        if pretrain is None:
            return self
        if target is None:
            raise KeyedError(
                "data.labels",
                'is missing: with network.weights = "pretrain" name the target labels, '
                "so that others are left to pretrain on",
            )
        if both := sorted(set(pretrain.labels or ()) & set(target)):
            raise KeyedError(
                "network.pretrain.labels",
                f"shares {', '.join(map(repr, both))} with data.labels: "
                "source and target labels must differ",
            )
        return self

    @property
    def meaning_digest(self) -> str:
        """Digest of everything that changes a result: 16 hexadecimal digits.

        It excludes names, descriptions, download folders, and how long the search continues
        (trials, timeout, finalists, uniform baselines).
        """
        return meaning_digest(self.model_dump(mode="json", exclude_none=True))
