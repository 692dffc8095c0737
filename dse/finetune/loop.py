"""The loop around the canonical step: training and scoring."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count, islice

import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.config import TrainingConfig
from dse.data.parts import Batch, Part
from dse.digests import derived_seed
from dse.errors import TrainingError
from dse.finetune.frozen import cached_batches, find_tail, trunk_outputs
from dse.metrics import Confusion, Metric
from dse.names import MemoryFormat
from dse.networks.forward import evaluating
from dse.networks.logits import main_logits
from dse.step.canonical import classification_loss, training_step
from dse.step.optimizers import make_optimizer
from dse.step.schemes import training_mode
from dse.step.settings import StepSettings
from dse.step.single_values import single_values_named

WARM_UP_SHARE = 0.3

# Of the whole network, before what is frozen is no longer computed; their median is reported.
TIMED_STEPS = 3

# Images that go forward at once where nothing trains: no fewer, however small the training batch,
# since statistics of a handful are noise. Forward alone holds far less than a training step.
FORWARD_BATCH = 32

_MEND = "raise training.batch_size or data.image_size"


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well a network does on one part of the data.

    Attributes:
        confusion: Which class was taken for which.
        loss: Mean cross-entropy.
    """

    confusion: Confusion
    loss: float

    @property
    def accuracy(self) -> float:
        """Share of the images put right, from 0 to 1."""
        return self.by("accuracy")

    def by(self, metric: Metric) -> float:
        """Return a metric, from 0 to 1."""
        return self.confusion.score(metric)


@dataclass(frozen=True, kw_only=True)
class TrainingTrace:
    """What happened in a training.

    Attributes:
        losses: Of each step, before it.
        step_seconds: Median of the steps of the whole network, without the reading of images.
        images: Images of all steps.
    """

    losses: tuple[float, ...]
    step_seconds: float
    images: int


def evaluate(
    network: nn.Module,
    part: Part,
    *,
    batch_size: int,
    memory_format: MemoryFormat = "contiguous",
    device: str = "cpu",
) -> Score:
    """Score a network on all images of a part, in eval mode.

    Args:
        network: On the device; its modes are left as they were.
        part: Images and labels.
        batch_size: Images that go forward at once; the score doesn't depend on it.
        memory_format: Layout of the images.
        device: Where the batches are put.

    Raises:
        TrainingError: The network's outputs are not finite.
    """
    predicted: list[Tensor] = []
    classes, loss = 0, 0.0
    batches = part.batches(batch_size, memory_format=memory_format, device=device)
    with evaluating(network), torch.no_grad():
        for images, labels in batches:
            logits = main_logits(network(images))
            classes = logits.shape[1]
            predicted.append(logits.argmax(dim=1).cpu())
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
    if not math.isfinite(loss):
        raise TrainingError(
            f"the network's loss on the {part.name} part is {loss}: its weights or statistics "
            "are no longer finite; lower the learning rate"
        )
    confusion = Confusion.of(part.labels, torch.cat(predicted), classes=classes)
    return Score(confusion=confusion, loss=loss / len(part))


def finetune(
    network: nn.Module,
    part: Part,
    *,
    settings: TrainingConfig,
    epochs: float,
    seed: int,
    on_progress: Callable[[float], None] | None = None,
    go_on: Callable[[float], bool] | None = None,
) -> TrainingTrace:
    """Train what the scheme lets train, by nothing but canonical steps.

    Every step has a full batch, so that each holds the memory that was predicted for it. An
    epoch's left-over images are dropped; each epoch is shuffled anew. The learning rate goes
    through one cycle (see `learning_rate_at`).

    Args:
        network: On the device, with the scheme applied; changed in place, left in training mode.
        part: What to train on.
        settings: Optimizer, batch size, peak learning rate, memory format and device.
        epochs: How long; part of an epoch is rounded to whole steps, at least one.
        seed: Of order, augmentation and dropout; torch's global random state is left as it was.
        on_progress: Is told the share of the steps done.
        go_on: Is told the same, and ends the training where it says no.

    Raises:
        TrainingError: The part has fewer images than a batch, or the loss is no longer finite.
    """
    batch_size = settings.batch_size
    if len(part) < batch_size:
        raise TrainingError(
            f"the {part.name} part has {len(part)} images, fewer than a batch of {batch_size}: "
            "lower training.batch_size or give more images"
        )
    steps = max(1, round(epochs * (len(part) // batch_size) / settings.accumulate))
    first, _ = next(part.batches(1, memory_format=settings.memory_format, device=settings.device))
    training_mode(network, first)
    step_settings = StepSettings.of(settings)
    optimizer = make_optimizer(
        network.parameters(), step_settings, learning_rate=settings.learning_rate
    )
    losses: list[float] = []
    seconds: list[float] = []

    def images() -> int:
        return len(losses) * batch_size * settings.accumulate

    trained = network
    batches = endless_batches(part, settings, seed)
    with (
        torch_seeded(seed, device=settings.device),
        TrainingError.counting(images),
        single_values_named(TrainingError, mend=_MEND),
    ):
        for step in range(steps):
            if step == TIMED_STEPS and (spared := _spared(network, part, settings, seed, steps)):
                trained, batches = spared
            rate = learning_rate_at(step, steps=steps, peak=settings.learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            reading = _Timed(islice(batches, settings.accumulate))
            started = time.perf_counter()
            # float() waits for the device, so that the clock sees the whole step
            loss = float(
                training_step(
                    trained, optimizer, classification_loss, reading, settings=step_settings
                )
            )
            if trained is network:
                seconds.append(time.perf_counter() - started - reading.seconds)
            losses.append(loss)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} at step {step + 1} of {steps}, at learning rate "
                    f"{rate:.3g} of at most {settings.learning_rate:g}: lower the learning rate"
                )
            if on_progress is not None:
                on_progress((step + 1) / steps)
            if go_on is not None and not go_on((step + 1) / steps):
                break
    return TrainingTrace(
        losses=tuple(losses),
        step_seconds=statistics.median(seconds),
        images=images(),
    )


def learning_rate_at(step: int, *, steps: int, peak: float) -> float:
    """Learning rate of one step of a cycle.

    It rises linearly to the peak over the first 30 % of the steps, then falls along half a cosine
    towards zero (after Smith and Topin, 2018), whatever the number of steps; so a short training
    also ends at a small rate.

    Args:
        step: From 0.
        steps: Of the whole training.
        peak: The largest rate.
    """
    rising = max(1, round(WARM_UP_SHARE * steps))
    if step < rising:
        return peak * (step + 1) / rising
    return peak * (1 + math.cos(math.pi * (step + 1 - rising) / (steps + 1 - rising))) / 2


class _Timed:
    """Batches, and the seconds that were spent on reading them."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        started = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self.seconds += time.perf_counter() - started


def endless_batches(part: Part, settings: TrainingConfig, seed: int) -> Iterator[Batch]:
    """Go through a part again and again, shuffled anew each time, in full batches."""
    for epoch in count():
        yield from part.batches(
            settings.batch_size,
            seed=derived_seed(seed, "epoch", epoch),
            drop_last=True,
            memory_format=settings.memory_format,
            device=settings.device,
        )


def _spared(
    network: nn.Module, part: Part, settings: TrainingConfig, seed: int, steps: int
) -> tuple[nn.Module, Iterator[Batch]] | None:
    """What remains to train of a network with a frozen trunk, and the batches it is given.

    None where the images change, where that saves nothing, where a step runs in a way of its own,
    or where the trunk is no fixed function.
    """
    size, begun = settings.batch_size, TIMED_STEPS * settings.accumulate
    plain = settings.precision == "float32" and settings.checkpointing == "none"
    left = steps * settings.accumulate - begun
    if not plain or part.varies or left * size <= len(part) or len(part) < 3:  # noqa: PLR2004  # to compare
        return None
    few = next(part.batches(3, memory_format=settings.memory_format, device=settings.device))
    tail = find_tail(network, few[0])
    if tail is None:
        return None
    outputs = trunk_outputs(
        network, tail, part, batch_size=size, memory_format=settings.memory_format
    )
    if outputs is None:
        return None
    epochs = (
        cached_batches(outputs, part, batch_size=size, seed=derived_seed(seed, "epoch", epoch))
        for epoch in count()
    )
    return network.get_submodule(tail), islice(chain.from_iterable(epochs), begun, None)


@contextmanager
def torch_seeded(seed: int, *, device: str = "cpu") -> Iterator[None]:
    """Seed torch's own generators, which dropout draws from, and put them back afterwards."""
    forked = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=forked):
        torch.manual_seed(seed)
        yield
