"""Compile a network to a tape: one trace at marker widths, and another to verify the result."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import prod
from typing import Literal

import numpy as np
import torch
from torch import nn

from dse.errors import MemoryModelError
from dse.memory.compiled import CompiledTape, compile_arrays
from dse.memory.decode import Linear, MarkerDecoder, Monomial, UndecidedError, probed_dimension
from dse.memory.tape import Tape
from dse.memory.trace import step_network, trace_step
from dse.networks.engine import stock_of
from dse.pruning.groups import ChannelGroup
from dse.pruning.resize import Form, parameter_forms
from dse.step.canonical import Loss
from dse.step.settings import StepSettings

Method = Literal["markers", "probes"]

MARKERS = (2**17, 2**20)  # above any constant, while the product of two and a batch is below 2**63
MARKER_BATCH = 10_007  # a prime that is no factor of other dimensions
CHECK_BATCH = 3
LARGEST_EXACT = 2**53  # integers up to this are exact in double precision

Reading = tuple[Tape, list[Monomial], list[Monomial]]
"""A tape, with the monomials of its buffers and of its multiply-adds."""

Trace = Callable[[Sequence[int], int], Tape]


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
    multiples = [group.multiple for group in groups]
    forms = [
        _linear(form, multiples)
        for shape in parameter_forms(stock_of(network), groups).values()
        for form in shape
        if isinstance(form, Form) and form.terms
    ]
    full = [group.channels // group.multiple for group in groups]
    # A second trace, at other widths, verifies that the polynomials hold there too.
    check_units = _check_units(full)
    check = trace(check_units, CHECK_BATCH)
    method: Method = "markers"
    try:
        tape, buffers, macs = _read_markers(trace, forms, groups=len(groups))
        _agree(network, tape, check)
        _explains(buffers, check, units=check_units)
    except UndecidedError:
        # Some dimension has no unique explanation at marker widths: widen one group at a time.
        method = "probes"
        tape, buffers, macs = _read_probes(network, trace, full)
        _agree(network, tape, check)
        try:
            _explains(buffers, check, units=check_units)
        except UndecidedError as error:
            raise MemoryModelError(
                f"{type(network).__name__} has a buffer that is no polynomial in its channels "
                f"and batch: {error}"
            ) from error
    compiled = compile_arrays(
        buffers=buffers,
        float_bytes=tape.float_bytes,
        categories=tape.category,
        events=tape.events,
        sites=tape.sites,
        macs=macs,
        groups=len(groups),
    )
    if sum(buffer.at(full, 1) for buffer in buffers) > LARGEST_EXACT:
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

    def trace(units: Sequence[int], batch_size: int) -> Tape:
        channels = [unit * multiple for unit, multiple in zip(units, multiples, strict=True)]
        shell = step_network(
            network, groups, channels, image_shape=image_shape, scheme=settings.scheme
        )
        return trace_step(shell, (batch_size, *image_shape), settings=settings, loss=loss)

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


def _read_markers(trace: Trace, forms: Sequence[Linear], *, groups: int) -> Reading:
    units = _marker_units(groups)
    singles = [Linear(0, ((group, 1),)) for group in range(groups)]
    decoder = MarkerDecoder([*singles, *forms], units=units, batch_size=MARKER_BATCH)
    tape = trace(units, MARKER_BATCH)
    buffers = [decoder.product(dims) for dims in tape.dims]
    macs = [decoder.product(dims) for dims in tape.macs]
    return tape, buffers, macs


def _marker_units(groups: int) -> list[int]:
    """Draw distinct primes, so that different products of markers have different values."""
    low, high = MARKERS
    sieve = np.ones(high, dtype=bool)
    for number in range(2, int(high**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = False
    primes = np.flatnonzero(sieve[low:]) + low
    return [int(p) for p in np.random.default_rng(0).choice(primes, size=groups, replace=False)]


def _check_units(full: Sequence[int]) -> list[int]:
    """Choose few units per group, to reveal operators that depend on channel counts."""
    rng = np.random.default_rng(1)
    return [min(count, int(rng.integers(2, max(5, count // 4)))) for count in full]


def _read_probes(network: nn.Module, trace: Trace, full: Sequence[int]) -> Reading:
    """Trace once per group, with only that group widened: slow, but without any assumption."""
    base = trace(full, CHECK_BATCH)
    shifts = [max(1, count // 2) for count in full]
    probes = []
    for group, shift in enumerate(shifts):
        units = list(full)
        units[group] += shift
        probes.append(trace(units, CHECK_BATCH))
    batch_probe = trace(full, CHECK_BATCH + 1)
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
        raise MemoryModelError(f"a buffer's size is no polynomial in channels: {error}") from error
    return base, buffers, macs


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


def _explains(buffers: Sequence[Monomial], tape: Tape, *, units: Sequence[int]) -> None:
    for buffer, dims in zip(buffers, tape.dims, strict=True):
        if buffer.at(units, CHECK_BATCH) != prod(dims):
            raise UndecidedError(f"a buffer of {prod(dims)} bytes was read wrongly")
