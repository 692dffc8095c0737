"""Measure a real training step: peak bytes by the allocator's own account, and seconds."""

import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from dse.errors import MemoryModelError
from dse.finetune.optimizers import make_optimizer
from dse.finetune.schemes import apply_scheme
from dse.finetune.settings import MEMORY_FORMATS, StepSettings
from dse.finetune.single_values import single_values_named
from dse.finetune.step import Loss, classification_loss, training_step

TIMED_STEPS = 3

_MEND = "raise the batch size or the image size"

# Kineto, the profiler's back end, writes to stderr that it finds no GPU and when it starts.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")


@dataclass(frozen=True)
class Measurement:
    """A real step.

    Attributes:
        peak_bytes: the most that the allocator had given out, what lived before included.
        step_seconds: median over a few further steps, unprofiled.
    """

    peak_bytes: int
    step_seconds: float


def measure_peak(
    network: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    scheme: str = "full",
    settings: StepSettings | None = None,
    loss: Loss = classification_loss,
    timed_steps: int = TIMED_STEPS,
) -> Measurement:
    """Run training steps and report the peak of the second, when the optimizer's state is there.

    Args:
        network: trained for a few steps, so pass a copy; its device is measured.
        inputs: (batch, channels, height, width), on the same device.
        labels: (batch,), on the same device.
        scheme: which parameters train.
        settings: optimizer and memory format; the defaults if None.
        loss: of outputs and labels.
        timed_steps: how many steps to time after the measured one, at least one.

    Returns:
        On a CPU, cumulative allocator events plus the bytes that lived before the step; on CUDA,
        ``max_memory_allocated``.
    """
    settings = settings or StepSettings()
    memory_format = MEMORY_FORMATS[settings.memory_format]
    network = network.to(memory_format=memory_format)
    inputs = inputs.contiguous(memory_format=memory_format)
    apply_scheme(network, inputs[:2], scheme)
    optimizer = make_optimizer(network.parameters(), settings, learning_rate=1e-6)
    batches = [(inputs, labels)] * settings.accumulate

    def step() -> None:
        training_step(network, optimizer, loss, batches, settings=settings)

    count, side = len(inputs), inputs.shape[-1]
    with enough_memory(count, side), single_values_named(MemoryModelError, mend=_MEND):
        step()
    state = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    kept = [p.grad for p in network.parameters() if p.grad is not None]  # unless set to none
    resident = [*network.parameters(), *network.buffers(), inputs, labels, *state, *kept]
    peak_bytes = _cuda_peak(step) if inputs.is_cuda else _cpu_peak(step, resident)
    return Measurement(peak_bytes, _median_seconds(step, timed_steps, inputs.device))


@contextmanager
def enough_memory(count: int, side: int) -> Iterator[None]:
    """Say in our words that this machine hasn't the memory for a step.

    Raises:
        MemoryModelError: so it is.
    """
    try:
        yield
    except RuntimeError as error:  # a GPU's OutOfMemoryError is one, too
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise MemoryModelError(
            f"a step with {count} images of {side}x{side} needs more memory than this machine "
            "has free: measure a smaller batch"
        ) from error


def _cpu_peak(step: Callable[[], None], resident: Iterable[torch.Tensor]) -> int:
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in resident}
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    results = profiler.profiler.kineto_results
    events = [event for event in results.events() if event.name() == "[memory]"]
    if not events:
        raise MemoryModelError(
            "the profiler reports no allocations, so the step can't be measured on this device"
        )
    held = peak = sum(storages.values())
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def _cuda_peak(step: Callable[[], None]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def _median_seconds(step: Callable[[], None], steps: int, device: torch.device) -> float:
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
