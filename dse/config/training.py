"""The training step of a study."""

import re
from typing import Annotated, Protocol

from pydantic import Field, field_validator, model_validator

from dse import names
from dse.config.base import Frozen, KeyedError
from dse.config.fields import AsTuple, Count, Engine, Optimizer, Positive, Rate, Scheme
from dse.config.lora import with_lora
from dse.names import Checkpointing, MemoryFormat, Precision

_LORA_KEYS = ("lora_rank", "lora_alpha", "lora_targets")


class _Step(Protocol):
    @property
    def engine(self) -> str: ...
    @property
    def checkpointing(self) -> Checkpointing: ...
    @property
    def precision(self) -> Precision: ...


def engine_conflict(step: _Step) -> str | None:
    """Return why a step's engine doesn't go with its other settings; None if it does."""
    if step.engine == "stock":
        return None
    if step.checkpointing != "none":
        return (
            f'engine "{step.engine}" doesn\'t go with checkpointing "{step.checkpointing}", which '
            'belongs to stock PyTorch: set checkpointing to "none"; lean plans recompute blocks '
            "themselves"
        )
    if step.precision != "float32":
        return (
            f'engine "{step.engine}" doesn\'t go with precision "{step.precision}": a lean network '
            'does not run under autocast; set precision to "float32"'
        )
    return None


class _Updating(Protocol):
    @property
    def accumulate(self) -> int: ...
    @property
    def optimizer_in_backward(self) -> bool: ...


def in_backward_conflict(step: _Updating) -> str | None:
    """Return why an optimizer can't run in the backward pass of a step; None if it can."""
    if step.optimizer_in_backward and step.accumulate > 1:
        return (
            f"doesn't go with accumulate = {step.accumulate}, which adds gradients up over several "
            "backward passes: set accumulate to 1"
        )
    return None


class TrainingConfig(Frozen):
    """The training step that memory is predicted for: scheme, optimizer and sizes.

    Attributes:
        scheme: which parameters train: "full", "last", "norm", "bias", "lite-residual",
            "from:MODULE", "only:MODULE,MODULE" or "lora:RANK" ("lora" for rank 8).
        lora_rank: rank of the adapters, if the scheme has some. This and the next two become part
            of the scheme, as in "lora:8,alpha=16,targets=qkv,proj", when a study is read.
        lora_alpha: what adapters add is scaled by lora_alpha / lora_rank; by default by 1.
        lora_targets: names, or ends of names, of the linear layers that get adapters; by default
            all but the output layer.
        batch_size: images per micro-batch.
        optimizer: name of the optimizer.
        learning_rate: peak learning rate.
        weight_decay: weight decay of the optimizer.
        nesterov: whether SGD uses Nesterov momentum.
        memory_format: memory format of network and images.
        accumulate: number of micro-batches whose gradients are added up before an optimizer step.
        checkpointing: "blocks" keeps only each block's input, and computes the block again in the
            backward pass: less memory for more time.
        engine: what runs the step: "stock" PyTorch; "lean", which holds only what the backward pass
            needs and has the same gradients; "lean:least", with the plan of least memory; or
            "lean:128 MiB", with the fastest plan within that size.
        precision: "bf16-mixed" runs the forward pass under PyTorch's autocast to bfloat16.
        foreach: whether the optimizer updates all tensors in one call.
        fused: whether the optimizer updates each tensor in one kernel, without temporaries.
        optimizer_in_backward: whether each parameter is updated in the backward pass, as soon as
            its gradient is there: gradients never live all at once, and results are the same.
        threads: number of CPU threads; 0 uses as many as there are free cores when a command begins
            to train. Sums differ by rounding with their number: set it to repeat results exactly.
        device: device that the training runs on.
    """

    scheme: Scheme = "full"
    lora_rank: Annotated[Count | None, Field(exclude=True)] = None
    lora_alpha: Annotated[Positive | None, Field(exclude=True)] = None
    lora_targets: Annotated[tuple[str, ...] | None, AsTuple, Field(exclude=True)] = None
    batch_size: Count = 32
    optimizer: Optimizer = "sgd-momentum"
    learning_rate: Rate = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    nesterov: bool = False
    memory_format: MemoryFormat = "contiguous"
    accumulate: Count = 1
    checkpointing: Checkpointing = "none"
    engine: Engine = "stock"
    precision: Precision = "float32"
    foreach: bool = False
    fused: bool = False
    optimizer_in_backward: bool = False
    threads: Annotated[int, Field(ge=0)] = 0
    device: str = "cpu"

    @field_validator("device")
    @classmethod
    def _check_device(cls, device: str) -> str:
        if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
            raise ValueError('is not a device: write "cpu", "cuda", "cuda:0" or "mps"')
        return device

    @model_validator(mode="after")
    def _put_lora_into_scheme(self) -> "TrainingConfig":
        given = [key for key in _LORA_KEYS if getattr(self, key) is not None]
        if given:
            try:
                scheme = with_lora(
                    self.scheme,
                    rank=self.lora_rank,
                    alpha=self.lora_alpha,
                    targets=self.lora_targets,
                )
            except ValueError as error:
                raise KeyedError(given[0], str(error)) from error
            # The class is frozen for its users; here it isn't finished yet.
            self.__dict__.update({"scheme": scheme, **dict.fromkeys(_LORA_KEYS)})
        return self

    @model_validator(mode="after")
    def _check_engine(self) -> "TrainingConfig":
        if (conflict := engine_conflict(self)) is not None:
            _, _, rest = conflict.partition('" ')
            raise KeyedError("engine", f"{self.engine!r} {rest}")
        return self

    @model_validator(mode="after")
    def _check_in_backward(self) -> "TrainingConfig":
        if (conflict := in_backward_conflict(self)) is not None:
            raise KeyedError("optimizer_in_backward", conflict)
        return self

    @model_validator(mode="after")
    def _check_foreach(self) -> "TrainingConfig":
        if self.foreach and self.fused:
            raise KeyedError("foreach", "doesn't go with training.fused: turn one of them off")
        return self

    @model_validator(mode="after")
    def _check_nesterov(self) -> "TrainingConfig":
        if self.nesterov and self.optimizer not in names.NESTEROV:
            raise KeyedError(
                "nesterov",
                f"needs training.optimizer = {names.either(names.NESTEROV, quoted=True)}, "
                f"not {self.optimizer!r}: change one of the two",
            )
        return self
