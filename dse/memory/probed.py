"""The allocator's view of one step, learned by running each of its operators alone.

Nothing needs to be known about a machine's kernels. The step is traced as the device would dispatch
it. Each distinct operator then runs on the device, and what it allocates in addition to its results
is added to the step where the operator runs. The results are cached on disk (see ``probe_cache``).

Tensors without values do not always get the strides that the device gives to a result, and later
operators depend on them. If an operator's real result has another layout, the step is traced again
with that layout.
"""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dse.caches import cache_folder
from dse.errors import MemoryModelError
from dse.memory.compiled import compile_arrays
from dse.memory.decode import Monomial
from dse.memory.operator_run import OperatorRun, Stride
from dse.memory.probe import Probed, probe_for
from dse.memory.probe_cache import CachedProbe
from dse.memory.tape import Tape
from dse.memory.timeline import Timeline, category_changes, make_timeline, with_workspace
from dse.memory.trace import step_network, trace_step
from dse.pruning.groups import ChannelGroup
from dse.step.canonical import Loss, classification_loss
from dse.step.settings import StepSettings

FOLDER = "operators"

Layouts = Mapping[Any, Sequence[Stride | None]]


def probed_timeline(
    network: nn.Module,
    example_input: torch.Tensor,
    *,
    batch_size: int,
    settings: StepSettings | None = None,
    loss: Loss | None = None,
    device: str = "cpu",
    groups: Sequence[ChannelGroup] = (),
    channels: Sequence[int] = (),
    cache: Path | None = None,
    renew: bool = False,
    only_cached: bool = False,
) -> Timeline:
    """Return what one step holds in a device's allocator, with ``workspace`` as the last category.

    The step itself does not run, so it may exceed the device's memory. Each of its operators runs
    alone and must fit.

    Args:
        network: The network, on any device. Only its shapes are used, and it is not changed.
        example_input: Tensor (any batch, channels, height, width).
        batch_size: Images per step.
        settings: Settings of the step. Defaults to ``StepSettings()``.
        loss: Loss of outputs and labels. Defaults to cross-entropy.
        device: ``cpu``, ``cuda`` or ``cuda:N``. The device must exist on this machine.
        groups: Channel groups to prune.
        channels: Channels to keep in each group, shape (groups,).
        cache: Cache folder. Defaults to ``cache_folder()``. A folder that can't be written is
            ignored.
        renew: Whether to run every operator again, ignoring the cache.
        only_cached: Whether no operator may run.

    Returns:
        The timeline of the step.

    Raises:
        ConfigError: If this machine does not have the device.
        MemoryModelError: If the step can't be traced, or an operator can't run alone.
        NetworkError: If the scheme does not apply to the network.
        UncachedError: If an operator is not cached, and none may run.
    """
    folder = (cache_folder() if cache is None else cache) / FOLDER
    probe = CachedProbe(
        probe_for(device), device=device, folder=folder, renew=renew, only_cached=only_cached
    )
    image, step = tuple(example_input.shape[1:]), settings or StepSettings()

    def trace(layouts: Layouts) -> Tape:
        shell = step_network(
            network,
            groups,
            channels,
            image_shape=image,
            scheme=step.scheme,
            input_dtype=example_input.dtype,
        )
        return trace_step(
            shell,
            (batch_size, *image),
            settings=step,
            loss=loss or classification_loss,
            device=device,
            layouts=layouts,
            input_dtype=example_input.dtype,
        )

    layouts: dict[Any, Sequence[Stride | None]] = {}
    # Repeat until the trace has the layouts of the device. New layouts may lead to new operators.
    while True:
        tape = trace(layouts)
        distinct = {run.key: run for run in tape.runs}
        known = dict(zip(distinct, probe.run(list(distinct.values())), strict=True))
        other = {
            run.call: known[key].strides
            for key, run in distinct.items()
            if _laid_out_differently(run, known[key])
        }
        if not other:
            return timeline_of(tape, known, block_bytes=probe.block_bytes)
        if other.keys() <= layouts.keys():
            raise MemoryModelError(
                f"{next(iter(other))[0]} lays out its result in more than one way on {device}; "
                "use the tensors convention"
            )
        layouts |= other


def timeline_of(tape: Tape, known: Mapping[Any, Probed], *, block_bytes: int) -> Timeline:
    """Combine a step's tape with the allocations of its operators.

    Args:
        tape: Tape traced for the probe's device.
        known: Allocations by ``OperatorRun.key``.
        block_bytes: Granularity of the device's allocator.
    """
    sizes = [prod(dims) for dims in tape.dims]
    workspace = []
    for run in tape.runs:
        found = known[run.key]
        workspace.append(_round_up(found.workspace_bytes, block_bytes))
        for buffer, held in zip(run.results, found.result_bytes, strict=True):
            if buffer is not None:
                sizes[buffer] = held
    compiled = compile_arrays(
        buffers=[Monomial(_round_up(size, block_bytes)) for size in sizes],
        float_bytes=tape.float_bytes,
        categories=tape.category,
        events=tape.events,
        sites=tape.sites,
        macs=(),
        groups=0,
    )
    tensors = make_timeline(compiled, category_changes(compiled), np.empty(0, dtype=np.int64), 1)
    return with_workspace(
        tensors,
        np.array([run.position for run in tape.runs], dtype=np.int64),
        workspace,
        lasting=sum(_round_up(held, block_bytes) for held in _lasting(tape, known)),
    )


def _lasting(tape: Tape, known: Mapping[Any, Probed]) -> tuple[int, int]:
    """Return bytes that libraries keep for the backward pass's thread, and for the main thread.

    Operators of one thread share what a library keeps for it.
    """
    kept: dict[bool, int] = {True: 0, False: 0}
    for run in tape.runs:
        backward = run.phase == "backward"
        kept[backward] = max(kept[backward], known[run.key].lasting_bytes)
    return kept[True], kept[False]


def _laid_out_differently(run: OperatorRun, found: Probed) -> bool:
    """Whether a result has other strides on the device than in the trace, where both are known."""
    return any(
        traced is not None and real is not None and traced != real
        for traced, real in zip(run.strides, found.strides, strict=True)
    )


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
