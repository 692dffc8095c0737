"""Recovery: training of a pruned network before it is transferred to the device."""

from typing import Annotated

from pydantic import Field, model_validator

from dse.config.base import Frozen, KeyedError
from dse.config.fields import Count, DataName, FolderPath, Labels, Positive
from dse.names import Augmentation, RecoveryAim


class RecoveryConfig(Frozen):
    """Training between pruning and fine-tuning, off the device and without a memory limit.

    Only networks that lost channels are recovered.

    Attributes:
        aim: "labels" trains everything on the source's labels with SGD and momentum, and drops the
            source's output layer afterwards. "imitate" trains the pruned layers and all before them
            to reproduce the unpruned network's outputs on source images, with Adam.
        data: "folder", "hf", "torchvision:NAME" or "package.module:factory"; if None, the images
            and labels of [network.pretrain].
        root: as in [data].
        labels: a subset of the source's labels.
        epochs: number of passes over the source images; may be fractional.
        learning_rate: peak learning rate of the cycle; 0.05 for labels and 0.003 to imitate by
            default.
        batch_size: images per step.
        weight_decay: weight decay of the optimizer.
        augment: as in [data].
    """

    aim: RecoveryAim = "labels"
    data: DataName | None = None
    root: FolderPath | None = None
    labels: Labels | None = None
    epochs: Positive = 3.0
    learning_rate: Positive = Field(
        default_factory=lambda seen: 0.003 if seen.get("aim") == "imitate" else 0.05
    )
    batch_size: Count = 128
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    augment: Augmentation = "none"

    @model_validator(mode="after")
    def _check_data(self) -> "RecoveryConfig":
        if self.data is None:
            for key in ("root", "labels"):
                if getattr(self, key) is not None:
                    raise KeyedError(key, "needs recovery.data, which it belongs to: add that")
        if self.data in ("folder", "hf") and self.root is None:
            raise KeyedError(
                "root",
                f'is missing: recovery.data = "{self.data}" reads the folder that root names',
            )
        return self
