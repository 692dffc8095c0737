"""Fine-tuning and scoring a network on parts of the data."""

import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from dse.data import Part
from dse.errors import TrainingError
from dse.execution import evaluating
from dse.finetune.optimizers import make_optimizer
from dse.finetune.schemes import training_mode
from dse.finetune.step import classification_loss, training_step

MemoryFormat = Literal["contiguous", "channels-last"]
Progress = Callable[[float], None]

WARM_UP = 0.3  # of all steps, as in the one-cycle rule (Smith and Topin, 2019)


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How a network is trained; `memory_format` and the optimizer decide what a step holds."""

    optimizer: str = "sgd-momentum"
    learning_rate: float = 0.05
    weight_decay: float = 0.0
    nesterov: bool = False
    batch_size: int = 32
    memory_format: MemoryFormat = "contiguous"
    device: str = "cpu"


@dataclass(frozen=True)
class TrainingTrace:
    """A finished fine-tuning.

    Attributes:
        losses: (steps,) one a step.
        step_seconds: median over the steps.
        images: how many were trained on.
    """

    losses: tuple[float, ...]
    step_seconds: float
    images: int


@dataclass(frozen=True)
class Score:
    """Accuracy from 0 to 1, mean cross-entropy, and how many images were looked at."""

    accuracy: float
    loss: float
    images: int


def learning_rate_at(step: int, *, steps: int, peak: float) -> float:
    """One cycle: a linear rise over the first 30 % of the steps, then half a cosine to zero.

    Args:
        step: from 0.
        steps: of the whole training.
        peak: the highest rate.
    """
    rising = max(1, round(WARM_UP * steps))
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def finetune(
    network: nn.Module,
    part: Part,
    *,
    settings: LoopSettings,
    epochs: float,
    seed: int,
    on_progress: Progress | None = None,
) -> TrainingTrace:
    """Train those parameters that require gradients, with the canonical step throughout.

    Every batch is full, so that each step holds what the memory model predicts.

    Args:
        network: changed in place; its scheme is applied already.
        part: to train on.
        settings: optimizer, batch and formats.
        epochs: may be a fraction; at least one step is taken.
        seed: of shuffling, augmentation and dropout.
        on_progress: told the share of steps done, from 0 to 1.

    Raises:
        TrainingError: the loss stopped being finite.
        DataError: the part has too few images for one batch.
    """
    per_epoch = len(part) // settings.batch_size
    steps = max(1, round(epochs * per_epoch))
    training_mode(network)
    optimizer = make_optimizer(
        network.parameters(),
        name=settings.optimizer,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov,
    )
    losses: list[float] = []
    seconds: list[float] = []
    epoch = 0
    with torch.random.fork_rng(devices=_devices(settings.device)):
        torch.manual_seed(seed)
        while len(losses) < steps:
            batches = part.batches(
                settings.batch_size,
                seed=seed + epoch,
                drop_last=True,
                memory_format=settings.memory_format,
                device=settings.device,
            )
            for images, labels in batches:
                rate = learning_rate_at(len(losses), steps=steps, peak=settings.learning_rate)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                start = time.perf_counter()
                loss = training_step(network, optimizer, classification_loss, images, labels)
                value = float(loss)
                seconds.append(time.perf_counter() - start)
                if not math.isfinite(value):
                    raise TrainingError(
                        f"the loss became {value} in step {len(losses) + 1} of {steps} at learning "
                        f"rate {rate:.3g}; lower training.learning_rate "
                        f"({settings.learning_rate:g})"
                    )
                losses.append(value)
                if on_progress is not None:
                    on_progress(len(losses) / steps)
                if len(losses) == steps:
                    break
            epoch += 1
    images_trained = steps * settings.batch_size
    return TrainingTrace(tuple(losses), statistics.median(seconds), images_trained)


def recalibrate_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> int:
    """Compute the running statistics of batch normalisation anew, as plain means over batches.

    Pruning changes what every later layer sees, and a short training ends before the running
    means have caught up with the weights.

    Args:
        network: changed in place, its parameters and modes aside.
        batches: of images.

    Returns:
        How many images were passed forward; 0 for a network without such statistics.
    """
    norms = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    images_forward = 0
    with evaluating(network), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative mean
            norm.train()
        for images in batches:
            network(images)
            images_forward += len(images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
    return images_forward


def evaluate(network: nn.Module, part: Part, *, settings: LoopSettings) -> Score:
    """Score a network on every image of a part, in eval mode and without gradients.

    Raises:
        TrainingError: the network's outputs aren't finite.
    """
    right, loss = 0, 0.0
    with evaluating(network), torch.no_grad():
        for images, labels in part.batches(
            settings.batch_size, memory_format=settings.memory_format, device=settings.device
        ):
            logits = network(images)
            right += int((logits.argmax(dim=1) == labels).sum())
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
    if not math.isfinite(loss):
        raise TrainingError(
            f"the network's outputs on the {part.name} part are not finite after training; "
            f"lower training.learning_rate ({settings.learning_rate:g})"
        )
    return Score(right / len(part), loss / len(part), len(part))


def _devices(device: str) -> list[torch.device]:
    return [torch.device(device)] if device.startswith("cuda") else []
