"""All that decides, beside the network, which buffers one step holds."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from dse.errors import ConfigError
from dse.names import (
    CHECKPOINTING,
    MEMORY_LAYOUTS,
    MODES,
    PRECISIONS,
    Checkpointing,
    MemoryFormat,
    Mode,
    Precision,
    use,
)

if TYPE_CHECKING:
    from dse.config import TrainingConfig

MEMORY_FORMATS: dict[str, torch.memory_format] = {
    "contiguous": torch.contiguous_format,
    "channels-last": torch.channels_last,
}


@dataclass(frozen=True)
class StepSettings:
    """One training step, as the fine-tuning runs it and the memory model traces it.

    Attributes:
        scheme: which parameters train, see ``apply_scheme``.
        optimizer: see ``make_optimizer``.
        weight_decay: above 0, SGD and Adam hold one temporary more.
        nesterov: Nesterov's form of ``sgd-momentum``.
        foreach: the optimizer updates all tensors in one call.
        fused: the optimizer updates each tensor in one kernel, without temporaries.
        memory_format: of the images and weights.
        mode: a ``training`` step, or ``inference`` (evaluation mode, no gradients).
        accumulate: batches whose gradients are added up before the optimizer's step.
        checkpointing: ``blocks`` keeps each block's input alone and computes the block again in
            the backward pass.
        precision: ``bf16-mixed`` runs the forward pass under PyTorch's autocast to bfloat16.
        set_to_none: whether gradients are dropped after the step, or kept and zeroed.

    Raises:
        ConfigError: two of them contradict each other.
    """

    scheme: str = "full"
    optimizer: str = "sgd-momentum"
    weight_decay: float = 0.0
    nesterov: bool = False
    foreach: bool = False
    fused: bool = False
    memory_format: MemoryFormat = "contiguous"
    mode: Mode = "training"
    accumulate: int = 1
    checkpointing: Checkpointing = "none"
    precision: Precision = "float32"
    set_to_none: bool = True

    def __post_init__(self) -> None:
        """Refuse what can't go together."""
        if self.foreach and self.fused:
            raise ConfigError("an optimizer is foreach or fused, not both: turn one of them off")
        if not isinstance(self.accumulate, int):
            raise ConfigError(
                f"accumulate is {self.accumulate}: it must be a whole number of batches"
            )
        if self.accumulate < 1:
            raise ConfigError(f"accumulate is {self.accumulate}: it must be 1 batch or more")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ConfigError(
                f"weight_decay is {self.weight_decay}: it must be 0 or more, as in 1e-4"
            )
        for name, value, known in (
            ("checkpointing", self.checkpointing, CHECKPOINTING),
            ("precision", self.precision, PRECISIONS),
            ("memory_format", self.memory_format, MEMORY_LAYOUTS),
            ("mode", self.mode, MODES),
        ):
            if value not in known:
                raise ConfigError(f"{name} is {value!r}: {use(known, given=value)}")

    @classmethod
    def of(cls, training: "TrainingConfig") -> "StepSettings":
        """The step that a study's ``[training]`` describes."""
        return cls(
            scheme=training.scheme,
            optimizer=training.optimizer,
            weight_decay=training.weight_decay,
            nesterov=training.nesterov,
            foreach=training.foreach,
            fused=training.fused,
            memory_format=training.memory_format,
            accumulate=training.accumulate,
            checkpointing=training.checkpointing,
            precision=training.precision,
        )
