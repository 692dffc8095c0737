"""A study as a whole, and the checks across its tables.

The classes of this package check what the text alone determines. Whether labels exist in the data,
or patterns match groups of the network, is checked later (`dse.data`, `dse.config.resolve_space`).
"""

import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from dse.config.base import Frozen, KeyedError
from dse.config.baselines import BaselinesConfig
from dse.config.data import DataConfig
from dse.config.digest import meaning_digest
from dse.config.fields import FolderPath
from dse.config.network import NetworkConfig
from dse.config.proxy import ProxyConfig
from dse.config.recovery import RecoveryConfig
from dse.config.reference import ReferenceConfig
from dse.config.search import SearchConfig
from dse.config.space import SpaceConfig
from dse.config.task import TaskConfig
from dse.config.training import TrainingConfig
from dse.names import TASK_METRICS

_TABLED = ("multi-label", "regression")  # whose targets stand in a table beside a folder
_DEFAULT_METRIC = TASK_METRICS["classification"][0]


class Study(Frozen):
    """A complete study: network, data, search space and training.

    Attributes:
        name: name of the study, also of its run folder.
        description: free text.
        seed: seed of everything random.
        source_dir: folder in which modules named by `network` are searched, and that relative paths
            in the study file refer to.
        network: the network to start from.
        task: what the outputs stand for, with the loss and the metric.
        data: the target's images.
        space: the search space.
        recovery: training before the transfer; None for none.
        baselines: baseline methods that are scored.
        reference: tuning of the unpruned network's recipe.
        training: the training step.
        proxy: fidelities of the fine-tuning.
        search: the search.
    """

    name: str
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    source_dir: FolderPath
    network: NetworkConfig
    task: TaskConfig = TaskConfig()
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
                "is missing: name the source images that the pruned network recovers on",
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

    @model_validator(mode="after")
    def _check_task(self) -> "Study":
        kind, metric = self.task.kind, self.search.metric
        if (self.data.table is not None) != (kind in _TABLED and self.data.name == "folder"):
            raise KeyedError(
                "data.table",
                f'is missing: the task "{kind}" reads its targets from a table beside the folder'
                if self.data.table is None
                else f'has no use for the task "{kind}": take it out',
            )
        if kind == "classification":
            if metric not in (_DEFAULT_METRIC, self.task.metric) and self.task.metric:
                raise KeyedError(
                    "search.metric", f'differs from task.metric = "{self.task.metric}": take it out'
                )
            if self.data.labels is not None and len(self.data.labels) < 2:  # noqa: PLR2004
                raise KeyedError("data.labels", "must hold 2 labels or more to tell apart")
            return self
        if metric != _DEFAULT_METRIC:
            raise KeyedError(
                "search.metric",
                f'belongs to classification: write task.metric for the task "{kind}"',
            )
        if self.network.pretrain is not None:
            raise KeyedError(
                "network.pretrain", f'trains on labels, not for the task "{kind}": name weights'
            )
        if self.recovery is not None and self.recovery.aim == "labels":
            raise KeyedError(
                "recovery.aim", f'is "labels", which the task "{kind}" lacks: write "imitate"'
            )
        return self

    @property
    def metric(self) -> str:
        """Name of the metric of all scores; see `TaskConfig.metric`."""
        if self.task.metric is not None:
            return self.task.metric
        if self.task.kind == "classification":
            return self.search.metric
        return TASK_METRICS[self.task.kind][0]

    @property
    def meaning_digest(self) -> str:
        """Digest of everything that changes a result: 16 hexadecimal digits.

        It excludes names, descriptions, download folders, and how long the search continues
        (trials, timeout, finalists, uniform baselines).
        """
        return meaning_digest(self.model_dump(mode="json", exclude_none=True))
