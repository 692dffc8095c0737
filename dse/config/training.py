"""The training step of a study."""

import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from dse.config.base import Frozen, KeyedError
from dse.config.fields import Count, Optimizer, Rate, Scheme
from dse.names import Checkpointing, MemoryFormat, Precision


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
