"""Compile a network to a tape: one trace at marker widths, and another to verify the result."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import prod
from typing import Literal

import numpy as np
import torch
from torch import nn

from dse.errors import MemoryModelError
from dse.memory.chunking import MarkedChunks, RepeatedChunks, size_table
from dse.memory.compiled import CompiledTape, compile_arrays
from dse.memory.decode import Linear, Monomial, UndecidedError, probed_dimension
from dse.memory.markers import WIDE_MARKERS, Reading, Trace, Watch, check_widths, read_markers
from dse.memory.tape import Tape
from dse.memory.trace import step_network, trace_step
from dse.networks.engine import EngineNetwork, stock_of
from dse.pruning.groups import ChannelGroup
from dse.pruning.resize import Form, parameter_forms
from dse.step.canonical import Loss
from dse.step.settings import StepSettings

Method = Literal["markers", "probes"]

CHECK_BATCH = 3
LARGEST_EXACT = 2**53  # integers up to this are exact in double precision


@dataclass(frozen=True)
class Compilation:
    """A compiled tape, and the method that identified the channel groups in its dimensions."""

    tape: CompiledTape
    method: Method


def compile_tape(
    network: nn.Module,
    example_input: torch.Tensor,
    *,
    groups: Sequence[ChannelGroup],
    settings: StepSettings,
    loss: Loss,
) -> Compilation:
    """Trace a network at marker widths and derive every buffer's polynomial from its dimensions.

    Args:
        network: The network. Only its shapes are used, and it is not changed.
        example_input: Tensor (any batch, channels, height, width).
        groups: Channel groups whose counts may vary.
        settings: Settings of the step.
        loss: Loss of outputs and labels.

    Raises:
        MemoryModelError: If the network runs other operators when it is pruned, or the size of a
            buffer is not a polynomial in channels and batch size.
    """
    trace = _tracer(network, example_input, groups=groups, settings=settings, loss=loss)
    return compile_trace(network, trace, groups=groups)


def compile_trace(
    network: nn.Module, trace: Trace, *, groups: Sequence[ChannelGroup]
) -> Compilation:
    """Compile what a function traces; see `compile_tape`.

    Args:
        network: The network. Only its parameters' shapes are used.
        trace: Traces its step at any widths and batch size.
        groups: Channel groups whose counts may vary.
    """
    multiples = [group.multiple for group in groups]
    forms = [
        _linear(form, multiples)
        for shape in parameter_forms(stock_of(network), groups).values()
        for form in shape
        if isinstance(form, Form) and form.terms
    ]
    full = [group.channels // group.multiple for group in groups]
    chunks = MarkedChunks(WIDE_MARKERS[0]) if isinstance(network, EngineNetwork) else None
    # A second trace, at other widths, verifies that the polynomials hold there too.
    check_units = check_widths(full, chunked=chunks is not None)
    check = None if chunks else trace(check_units, CHECK_BATCH, None)
    method: Method = "markers"
    try:
        found = read_markers(trace, forms, groups=len(groups), chunks=chunks)
        repeated = RepeatedChunks(chunks) if chunks else None
        check = check or trace(check_units, CHECK_BATCH, repeated)
        _agree(network, found.tape, check)
        sizes = repeated.sizes if repeated else ()
        _explains(found.buffers, check, variables=found.variables(check_units, sizes))
    except UndecidedError as error:
        if chunks and chunks.chunkings:
            raise MemoryModelError(
                f"{type(network).__name__} can't be modelled at other widths while tensors are "
                f'computed in chunks ({error}): use the engine "lean", whose plan has none'
            ) from error
        # Some dimension has no unique explanation at marker widths: widen one group at a time.
        method = "probes"
        check = check or trace(check_units, CHECK_BATCH, None)
        found = _read_probes(network, trace, full)
        _agree(network, found.tape, check)
        try:
            _explains(found.buffers, check, variables=check_units)
        except UndecidedError as unexplained:
            raise MemoryModelError(
                f"{type(network).__name__} has a buffer that is not a polynomial in its channels "
                f"and batch: {unexplained}"
            ) from unexplained
    tape, ways = found.tape, found.chunkings
    compiled = compile_arrays(
        buffers=found.buffers,
        float_bytes=tape.float_bytes,
        categories=tape.category,
        events=tape.events,
        sites=tape.sites,
        macs=found.macs,
        groups=len(groups),
        parts=found.parts,
        chunk_sizes=size_table(ways, [form.at(full) for form in found.parts]),
    )
    every = compiled.terms_at(np.array(full, dtype=np.int64), 1)[compiled.buffer_terms]
    if every.sum() > LARGEST_EXACT:
        raise MemoryModelError(f"{type(network).__name__} is too large to count in bytes exactly")
    return Compilation(compiled, method)


def _tracer(
    network: nn.Module,
    example_input: torch.Tensor,
    *,
    groups: Sequence[ChannelGroup],
    settings: StepSettings,
    loss: Loss,
) -> Trace:
    multiples = [group.multiple for group in groups]
    image_shape = tuple(example_input.shape[1:])

    def trace(units: Sequence[int], batch_size: int, chunks: Watch | None) -> Tape:
        channels = [unit * multiple for unit, multiple in zip(units, multiples, strict=True)]
        shell = step_network(
            network,
            groups,
            channels,
            image_shape=image_shape,
            scheme=settings.scheme,
            input_dtype=example_input.dtype,
        )
        return trace_step(
            shell,
            (batch_size, *image_shape),
            settings=settings,
            loss=loss,
            chunks=chunks,
            input_dtype=example_input.dtype,
        )

    return trace


def _linear(form: Form, multiples: Sequence[int]) -> Linear:
    """Convert a parameter's form from channels to units."""
    slopes = []
    for group, coefficient in form.terms:
        slope = coefficient * multiples[group]
        if slope.denominator != 1:
            raise MemoryModelError(
                f"channel group {group} can't be pruned in steps of {multiples[group]} channels"
            )
        slopes.append((group, int(slope)))
    return Linear(form.constant, tuple(sorted(slopes)))


def _read_probes(network: nn.Module, trace: Trace, full: Sequence[int]) -> Reading:
    """Trace once per group, with only that group widened: slow, but without any assumption."""
    base = trace(full, CHECK_BATCH, None)
    shifts = [max(1, count // 2) for count in full]
    probes = []
    for group, shift in enumerate(shifts):
        units = list(full)
        units[group] += shift
        probes.append(trace(units, CHECK_BATCH, None))
    batch_probe = trace(full, CHECK_BATCH + 1, None)
    for probe in (*probes, batch_probe):
        _agree(network, base, probe)

    def read(
        own: Sequence[int], others: Sequence[Sequence[int]], larger: Sequence[int]
    ) -> Monomial:
        result = Monomial(1)
        for position, value in enumerate(own):
            result = result * probed_dimension(
                value,
                shifted=[dims[position] for dims in others],
                shifts=shifts,
                units=full,
                larger_batch=larger[position],
                batch_size=CHECK_BATCH,
            )
        return result

    try:
        buffers = [
            read(dims, [probe.dims[i] for probe in probes], batch_probe.dims[i])
            for i, dims in enumerate(base.dims)
        ]
        macs = [
            read(dims, [probe.macs[i] for probe in probes], batch_probe.macs[i])
            for i, dims in enumerate(base.macs)
        ]
    except UndecidedError as error:
        raise MemoryModelError(
            f"a buffer's size is not a polynomial in channels: {error}"
        ) from error
    return Reading(base, buffers, macs)


def _agree(network: nn.Module, tape: Tape, other: Tape) -> None:
    if tape.operations() == other.operations():
        return
    steps, others = ([run.sites[site] for _, _, site in run.events] for run in (tape, other))
    pairs = zip_longest(steps, others)
    differing = next((one or two for one, two in pairs if one != two), None)
    where = f", first in {differing.module!r}" if differing and differing.module else ""
    raise MemoryModelError(
        f"{type(network).__name__} runs other operators from one trace to the next{where}, so no "
        "single memory model holds for all of them; its forward must not depend on channel counts, "
        "batch size or chance"
    )


def _explains(buffers: Sequence[Monomial], tape: Tape, *, variables: Sequence[int]) -> None:
    for buffer, dims in zip(buffers, tape.dims, strict=True):
        if buffer.at(variables, CHECK_BATCH) != prod(dims):
            raise UndecidedError(f"a buffer of {prod(dims)} bytes was read wrongly")
