"""The memory model's independent truth: a fresh trace, added up without polynomials."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from dse.memory.tape import Event, Tape
from dse.memory.trace import trace_step
from dse.pruning.resize import resized
from dse.step.canonical import classification_loss
from dse.step.schemes import apply_scheme
from dse.step.settings import StepSettings


def replayed(tape: Tape) -> int:
    """Peak bytes by adding and subtracting buffers in order."""
    held = peak = 0
    for event, buffer, _ in tape.events:
        if event in (Event.BIRTH, Event.DEATH):
            size = int(np.prod(tape.dims[buffer]))
            held += size if event == Event.BIRTH else -size
            peak = max(peak, held)
    return peak


def fresh_peak(
    network: nn.Module,
    shape: Sequence[int],
    *,
    scheme: str = "full",
    step: StepSettings,
    dtype: torch.dtype = torch.float32,
) -> int:
    """Trace a network as it is, whatever device it is on, and add up."""
    shell = resized(network, (), ())
    if step.mode == "training":
        apply_scheme(shell, torch.empty(2, *shape[1:], dtype=dtype, device="meta"), scheme)
    tape = trace_step(
        shell, tuple(shape), settings=step, loss=classification_loss, input_dtype=dtype
    )
    return replayed(tape)
