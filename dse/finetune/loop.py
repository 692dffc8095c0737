"""The training loop around the canonical step, and scoring."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, count, islice

import torch
from torch import nn

from dse.config import TrainingConfig
from dse.data.parts import Batch, Part
from dse.digests import derived_seed
from dse.engines.network import run_by
from dse.engines.plan import LeanPlan
from dse.errors import TrainingError
from dse.finetune.frozen import cached_batches, find_tail, trunk_outputs
from dse.finetune.statistics import SINGLE_VALUES_FIX
from dse.names import MemoryFormat
from dse.networks.forward import evaluating, run
from dse.networks.logits import main_logits
from dse.step.canonical import classification_loss, training_step
from dse.step.optimizers import make_optimizer
from dse.step.schemes import training_mode
from dse.step.settings import StepSettings
from dse.step.single_values import single_values_explained
from dse.tasks.task import Figures, Task, plain_task
from dse.user_code import guarded

WARM_UP_SHARE = 0.3

# Steps that always run the whole network, before a frozen trunk may be cached; `step_seconds` is
# the median of the steps of the whole network.
TIMED_STEPS = 3

# Images per forward pass without training. It is not reduced to a small training batch, because
# statistics of few images are noisy and a forward pass holds far less than a training step.
FORWARD_BATCH = 32

_FIX_CODE = "change the network's code, or data.image_size"


@dataclass(frozen=True, kw_only=True)
class Score:
    """The score of a network on one part of the data.

    Attributes:
        task: the task.
        figures: all its metrics.
        loss: mean loss.
    """

    task: Task = field(repr=False, compare=False)
    figures: Figures
    loss: float

    @property
    def accuracy(self) -> float:
        """The score by the study's metric; see `dse.measures`."""
        return self.by(self.task.metric)

    def by(self, metric: str) -> float:
        """Return the score by a metric; 1 is ideal."""
        return self.task.measures[metric].score(self.figures.values[metric])

    @property
    def correct(self) -> tuple[int, ...] | None:
        """Correct predictions by class; None for other tasks than classification."""
        confusion = self.figures.confusion
        return None if confusion is None else confusion.correct


@dataclass(frozen=True, kw_only=True)
class TrainingTrace:
    """A record of one training.

    Attributes:
        losses: loss of each step, before its update.
        step_seconds: median time of the steps of the whole network, excluding the loading of data.
        images: images of all steps.
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
    task: Task | None = None,
) -> Score:
    """Score a network on all images of a part, in eval mode.

    Args:
        network: network on the device; its modes are restored afterwards.
        part: images and labels.
        batch_size: images per forward pass; doesn't affect the score.
        memory_format: memory format of the images.
        device: device that batches are moved to.
        task: task of the outputs; a classification with as many classes as there are outputs if
            None.

    Raises:
        TrainingError: if the loss is not finite.
    """
    loss, tally = 0.0, None
    batches = part.batches(batch_size, memory_format=memory_format, device=device)
    with evaluating(network), torch.no_grad():
        for images, labels in batches:
            logits = main_logits(run(network, images))
            task = task or plain_task(logits.shape[1])
            task.on(device)
            tally = tally or task.tally()
            task.add(tally, logits, labels)
            loss += float(task.total(logits, labels))
    if task is None or tally is None:
        raise TrainingError(f"the {part.name} part is empty: give more images")
    if not math.isfinite(loss):
        raise TrainingError(
            f"the network's loss on the {part.name} part is {loss}: its weights or statistics "
            "are no longer finite; lower the learning rate"
        )
    return Score(task=task, figures=task.figures(tally), loss=loss / len(part))


def finetune(
    network: nn.Module,
    part: Part,
    *,
    settings: TrainingConfig,
    epochs: float,
    seed: int,
    on_progress: Callable[[float], None] | None = None,
    go_on: Callable[[float], bool] | None = None,
    plan: LeanPlan | None = None,
    task: Task | None = None,
) -> TrainingTrace:
    """Train the parameters that the scheme made trainable, using canonical steps only.

    Every step has a full batch, so that each holds the predicted memory. Images left over at the
    end of an epoch are dropped, and each epoch is shuffled anew. The learning rate follows one
    cycle (see `learning_rate_at`).

    Args:
        network: network on the device with the scheme applied; changed in place and left in
            training mode.
        part: training images and labels.
        settings: optimizer, batch size, peak learning rate, memory format and device.
        epochs: length of the training, rounded to whole steps and at least one step.
        seed: seed of order, augmentation and dropout; torch's global random state is restored.
        on_progress: called with the share of the steps that are done, from 0 to 1.
        go_on: called with the same share; training stops when it returns False.
        plan: plan of a lean step; None for stock PyTorch.
        task: task of the outputs; a plain classification if None.

    Raises:
        TrainingError: if the part has fewer images than a batch, or the loss is not finite.
        NetworkError: if the network's code raises an exception.
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
    loss_of = task.on(settings.device) if task else classification_loss
    losses: list[float] = []
    seconds: list[float] = []

    def images() -> int:
        return len(losses) * batch_size * settings.accumulate

    trained = whole = run_by(network, first, plan)
    batches = endless_batches(part, settings, seed)
    with (
        torch_seeded(seed, device=settings.device),
        TrainingError.counting(images),
        single_values_explained(TrainingError, fix=SINGLE_VALUES_FIX),
    ):
        for step in range(steps):
            if step == TIMED_STEPS and (spared := _spared(network, part, settings, seed, steps)):
                trained, batches = spared
            rate = learning_rate_at(step, steps=steps, peak=settings.learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            reading = _Timed(islice(batches, settings.accumulate))
            started = time.perf_counter()
            with guarded(network, "can't train", fix=_FIX_CODE):
                value = training_step(trained, optimizer, loss_of, reading, settings=step_settings)
            loss = float(value)  # waits for the device, so that the whole step is measured
            if trained is whole:
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
    """Return the learning rate of one step of the cycle.

    The rate rises linearly to the peak over the first 30 % of the steps, then falls along half a
    cosine towards zero (after Smith and Topin, 2018). The cycle scales with the number of steps, so
    a short training also ends at a small rate.

    Args:
        step: index of the step, from 0.
        steps: number of steps of the training.
        peak: the largest rate.
    """
    rising = max(1, round(WARM_UP_SHARE * steps))
    if step < rising:
        return peak * (step + 1) / rising
    return peak * (1 + math.cos(math.pi * (step + 1 - rising) / (steps + 1 - rising))) / 2


class _Timed:
    """An iterator over batches that measures the time spent on loading them."""

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
    """Iterate over a part endlessly in full batches, shuffled anew each epoch."""
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
    """Return the trainable tail of a network with a frozen trunk, and batches of its inputs.

    Returns None if the images are augmented, if less than one epoch is left, if steps use another
    precision or checkpointing, or if the trunk is not a fixed function.
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
    """Seed torch's global generators, which dropout draws from, and restore them on exit."""
    forked = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=forked):
        torch.manual_seed(seed)
        yield
