"""Settings of a training step: everything but the network that affects its memory."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dse.config.fields import engine_word
from dse.config.lora import canonical_scheme
from dse.config.training import engine_conflict, in_backward_conflict
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


@dataclass(frozen=True)
class StepSettings:
    """Settings of one training step, shared by fine-tuning and the memory model.

    Attributes:
        scheme: Which parameters train (see ``apply_scheme``).
        optimizer: Name of the optimizer (see ``make_optimizer``).
        weight_decay: L2 penalty, or decoupled decay for ``adamw``. Above 0, SGD and Adam hold one
            more temporary tensor.
        nesterov: Whether ``sgd-momentum`` uses Nesterov momentum.
        foreach: Whether the optimizer updates all tensors in one call.
        fused: Whether the optimizer updates each tensor in one kernel, without temporaries.
        memory_format: Memory format of the images and weights.
        mode: ``training`` for a training step, ``inference`` for a forward pass in eval mode
            without gradients.
        accumulate: Number of batches whose gradients are summed before the optimizer's step.
        checkpointing: ``none``, or ``blocks`` to keep only each block's input and recompute the
            block in the backward pass.
        engine: ``stock`` for PyTorch as it is, or ``lean`` for a step that holds only what the
            backward pass needs. ``lean:least`` and ``lean:SIZE`` plan it for the least memory, and
            for the least time within a size. Written in its canonical form, as in
            ``lean:128 MiB``.
        precision: ``float32``, or ``bf16-mixed`` to run the forward pass under PyTorch's autocast
            to bfloat16.
        optimizer_in_backward: Whether each parameter is updated in the backward pass, as soon as
            its gradient is there, so that gradients never live all at once.
        set_to_none: Whether gradients are freed after the step (True) or kept and zeroed (False).

    Raises:
        ConfigError: If a value is invalid, or ``foreach`` and ``fused`` are both set.
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
    engine: str = "stock"
    precision: Precision = "float32"
    optimizer_in_backward: bool = False
    set_to_none: bool = True

    def __post_init__(self) -> None:
        """Reject invalid values and options that exclude each other."""
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
        if (conflict := in_backward_conflict(self)) is not None:
            raise ConfigError(f"optimizer_in_backward {conflict}")
        if self.optimizer_in_backward and not self.set_to_none:
            raise ConfigError(
                "optimizer_in_backward drops gradients, and set_to_none=False keeps them: turn one "
                "of them off"
            )
        try:
            object.__setattr__(self, "scheme", canonical_scheme(self.scheme))
        except ValueError as error:
            raise ConfigError(f"scheme {self.scheme!r} {error}") from error
        self._check_engine()

    def _check_engine(self) -> None:
        try:
            object.__setattr__(self, "engine", engine_word(self.engine))
        except ValueError as error:
            raise ConfigError(f"engine {self.engine!r} {error}") from error
        if (conflict := engine_conflict(self)) is not None:
            raise ConfigError(conflict)

    @property
    def lean(self) -> bool:
        """Whether the lean engine runs the step."""
        return self.engine != "stock"

    @classmethod
    def of(cls, training: "TrainingConfig") -> "StepSettings":
        """Build the settings from the ``[training]`` table of a study."""
        return cls(
            scheme=training.scheme,
            optimizer=training.optimizer,
            weight_decay=training.weight_decay,
            nesterov=training.nesterov,
            foreach=training.foreach,
            fused=training.fused,
            optimizer_in_backward=training.optimizer_in_backward,
            memory_format=training.memory_format,
            accumulate=training.accumulate,
            checkpointing=training.checkpointing,
            engine=training.engine,
            precision=training.precision,
        )
