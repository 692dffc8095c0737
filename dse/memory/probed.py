"""The allocator's view of one step, each operator's allocations being learned by running it alone.

The rules of :mod:`dse.memory.workspace` hold for one kind of CPU. Here nothing is known beforehand:
the step is traced as the device would dispatch it, each distinct operator then runs once on the
device itself, and what it allocated beside its results is added where it runs in the step.
"""

from math import prod

import numpy as np
import torch
from torch import nn

from dse.memory.compiled import compile_arrays
from dse.memory.decode import Monomial
from dse.memory.probe import Probe, probe_for
from dse.memory.scratch import round_up
from dse.memory.tape import Tape
from dse.memory.timeline import Timeline, category_changes, make_timeline, with_workspace
from dse.memory.trace import trace_step
from dse.pruning.resize import resized
from dse.step.canonical import Loss, classification_loss
from dse.step.schemes import apply_scheme
from dse.step.settings import StepSettings


def probed_timeline(
    network: nn.Module,
    example_input: torch.Tensor,
    *,
    batch_size: int,
    scheme: str = "full",
    settings: StepSettings | None = None,
    loss: Loss | None = None,
    device: str = "cpu",
) -> Timeline:
    """What one step of a network holds in a device's allocator, ``workspace`` as a last category.

    The step itself doesn't run, so it needn't fit; each of its operators must.

    Args:
        network: as pruned as it shall be; left as it is, on whatever device.
        example_input: (any batch, channels, height, width).
        batch_size: images per step.
        scheme: which parameters train.
        settings: of the step; the defaults if None.
        loss: of (outputs, labels); cross-entropy if None.
        device: ``cpu``, ``cuda`` or ``cuda:N``; this machine must have it.

    Raises:
        ConfigError: this machine has no such device.
        MemoryModelError: the step can't be traced, or an operator can't run alone.
        NetworkError: the scheme doesn't fit the network.
    """
    probe = probe_for(device)
    shell = resized(network, (), ())
    image = tuple(example_input.shape[1:])
    apply_scheme(shell, torch.empty(2, *image, device="meta"), scheme)
    tape = trace_step(
        shell,
        (batch_size, *image),
        settings=settings or StepSettings(),
        loss=loss or classification_loss,
        device=device,
    )
    return timeline_with(tape, probe)


def timeline_with(tape: Tape, probe: Probe) -> Timeline:
    """Put what a probe tells of its operators into a step.

    Args:
        tape: traced for the probe's device.
        probe: runs each distinct operator once.
    """
    distinct = {run.key: run for run in tape.runs}
    known = dict(zip(distinct, probe.run(list(distinct.values())), strict=True))
    sizes = [prod(dims) for dims in tape.dims]
    workspace = []
    for run in tape.runs:
        found = known[run.key]
        workspace.append(round_up(found.workspace_bytes, probe.block_bytes))
        for buffer, held in zip(run.results, found.result_bytes, strict=True):
            if buffer is not None:
                sizes[buffer] = held
    compiled = compile_arrays(
        buffers=[Monomial(round_up(size, probe.block_bytes)) for size in sizes],
        float_bytes=tape.float_bytes,
        categories=tape.category,
        events=tape.events,
        sites=tape.sites,
        macs=(),
        calls=(),
        call_dims=(),
        groups=0,
    )
    tensors = make_timeline(compiled, category_changes(compiled), np.empty(0, dtype=np.int64), 1)
    return with_workspace(
        tensors,
        np.array([run.position for run in tape.runs], dtype=np.int64),
        workspace,
        lasting=round_up(probe.lasting_bytes(), probe.block_bytes),
    )
