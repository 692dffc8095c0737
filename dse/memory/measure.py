"""Measure a real training step: peak bytes according to the allocator, and seconds."""

import gc
import os
import statistics
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from dse.errors import MemoryModelError
from dse.memory_formats import in_format, laid_out
from dse.step.canonical import Loss, classification_loss, loss_tensors, training_step
from dse.step.optimizers import make_optimizer
from dse.step.schemes import apply_scheme
from dse.step.settings import StepSettings
from dse.step.single_values import single_values_explained
from dse.user_code import guarded, is_out_of_memory

TIMED_STEPS = 3

_FIX = "raise the batch size or the image size"

# Kineto, the profiler's back end, writes notices about GPUs and its start to stderr.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")


@dataclass(frozen=True)
class Measurement:
    """Measurement of a real step.

    Attributes:
        peak_bytes: Largest number of bytes allocated, including what was allocated before the step.
        step_seconds: Median seconds of a few further steps without the profiler.
    """

    peak_bytes: int
    step_seconds: float


def measure_peak(
    network: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    settings: StepSettings | None = None,
    loss: Loss = classification_loss,
    timed_steps: int = TIMED_STEPS,
) -> Measurement:
    """Run training steps and measure the peak of the second, when the optimizer's state exists.

    Args:
        network: Network to train for a few steps. Pass a copy. The device of its parameters is
            measured.
        inputs: Images of shape (batch, channels, height, width), on any device. On CUDA, everything
            else that the caller holds on the device counts too, so pass images on the CPU or in the
            step's memory format.
        labels: Labels of shape (batch,), or other targets of the loss, on any device.
        settings: Settings of the step. Defaults to ``StepSettings()``.
        loss: Loss of outputs and labels, with its tensors on the network's device.
        timed_steps: Number of steps to time after the measured one, at least one.

    Returns:
        The measurement. On a CPU, the peak is the cumulative allocator events plus the bytes
        allocated before the step. On CUDA, it is ``max_memory_allocated``.

    Raises:
        MemoryModelError: If memory runs out, the batch is too small for batch normalisation, or the
            profiler reports no allocations.
        NetworkError: If the scheme does not apply to the network, or its code raises an exception.
    """
    settings = settings or StepSettings()
    with enough_memory(len(inputs), inputs.shape[-1]):
        ready = ready_step(network, inputs, labels, settings=settings, loss=loss)
        del inputs  # in another layout, they were a second copy
        ready.step()  # creates the optimizer's state, which the next step then holds too
        on_cuda = ready.inputs.is_cuda
        peak_bytes = (
            _cuda_peak(ready.step) if on_cuda else _cpu_peak(ready.step, ready.resident(labels))
        )
        return Measurement(
            peak_bytes, _median_seconds(ready.step, timed_steps, ready.inputs.device)
        )


@dataclass(frozen=True, eq=False)
class ReadyStep:
    """A network that can be trained step by step.

    Attributes:
        network: The network, in the step's memory format, with its scheme applied.
        inputs: One batch on the network's device.
        optimizer: The optimizer.
        loss: The loss of outputs and labels.
        step: Runs one training step.
    """

    network: nn.Module
    inputs: torch.Tensor
    optimizer: torch.optim.Optimizer
    loss: Loss
    step: Callable[[], None]

    def resident(self, labels: torch.Tensor) -> list[torch.Tensor]:
        """Return the tensors that live from step to step."""
        state = [v for s in self.optimizer.state.values() for v in s.values()]
        kept = [p.grad for p in self.network.parameters()]  # if set_to_none is off
        network = [*self.network.parameters(), *self.network.buffers()]
        found = [*network, *loss_tensors(self.loss), self.inputs, labels, *state, *kept]
        return [one for one in found if torch.is_tensor(one)]


def ready_step(
    network: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    settings: StepSettings,
    loss: Loss = classification_loss,
) -> ReadyStep:
    """Prepare a network for training steps; see ``measure_peak`` for arguments and errors."""
    network = in_format(network, settings.memory_format)
    device = next((tensor.device for tensor in network.parameters()), inputs.device)
    # Change the layout before moving: otherwise both copies would be alive on the device.
    inputs = laid_out(inputs, settings.memory_format).to(device)
    labels = labels.to(device)
    apply_scheme(network, inputs[:2], settings.scheme)
    optimizer = make_optimizer(network.parameters(), settings, learning_rate=1e-6)
    batches = [(inputs, labels)] * settings.accumulate

    def step() -> None:
        with (
            guarded(network, "can't train", fix="change the network's code, or the image size"),
            single_values_explained(MemoryModelError, fix=_FIX),
        ):
            training_step(network, optimizer, loss, batches, settings=settings)

    return ReadyStep(network, inputs, optimizer, loss, step)


def enough_memory(count: int, side: int) -> AbstractContextManager[None]:
    """Raise a clear error if this machine does not have enough memory for a step.

    Raises:
        MemoryModelError: If memory runs out within this context.
    """
    return enough_memory_for(f"a step with {count} images of {side}x{side}")


@contextmanager
def enough_memory_for(what: str) -> Iterator[None]:
    """Raise a clear error if this machine does not have enough memory.

    Args:
        what: What needs the memory, as the subject of the message.

    Raises:
        MemoryModelError: If memory runs out within this context.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryModelError(
            f"{what} needs more memory than this machine has free: measure a smaller batch"
        ) from error


_MARK = "dse: measured"


def marked() -> AbstractContextManager[Any]:
    """Mark the allocations that ``most_allocated_each`` measures, within this context."""
    return record_function(_MARK)


def most_allocated_each(works: Sequence[Callable[[], object]]) -> list[int]:
    """Run functions on the CPU, and measure how much each allocates.

    Args:
        works: Functions. Each enters ``marked`` once.

    Returns:
        For each function, the largest number of bytes allocated within its mark, in addition to
        those allocated before.
    """
    gc.collect()  # otherwise older garbage may be freed while profiling, and torch warns of that
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for work in works:
            work()
    results: Any = profiler.profiler and profiler.profiler.kineto_results
    events = sorted(results.events(), key=lambda event: event.start_ns())
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    times = [time_ns for time_ns, _ in changes]
    peaks = []
    for event in events:
        if event.name() == _MARK:
            first = bisect_left(times, event.start_ns())
            last = bisect_right(times, event.start_ns() + event.duration_ns())
            inside = (change for _, change in changes[first:last])
            peaks.append(max(accumulate(inside, initial=0)))
    return peaks


def _cpu_peak(step: Callable[[], None], resident: Iterable[torch.Tensor]) -> int:
    def work() -> None:
        with marked():
            step()

    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in resident}
    (most,) = most_allocated_each([work])
    if not most:
        raise MemoryModelError(
            "the profiler reports no allocations, so the step can't be measured on this device"
        )
    return sum(storages.values()) + most


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
