"""Read every buffer's polynomial off one trace at marker widths."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dse.errors import MemoryModelError
from dse.memory.chunking import Chunking, MarkedChunks, RepeatedChunks
from dse.memory.decode import Linear, MarkerDecoder, Monomial
from dse.memory.tape import Tape

MARKERS = (2**17, 2**20)  # above any constant, while the product of two and a batch is below 2**63
WIDE_MARKERS = (2**20, 2**23)  # where tensors are computed in chunks, whose sizes are markers, too
MARKER_BATCH = 10_007  # a prime that is no factor of other dimensions

Watch = MarkedChunks | RepeatedChunks

Trace = Callable[[Sequence[int], int, Watch | None], Tape]
"""Traces a step at units of each group and a batch size, with chunks of watched sizes."""


@dataclass(frozen=True)
class Reading:
    """What a trace at marker widths, or at several widths, says.

    Attributes:
        tape: The tape.
        buffers: Monomials of its buffers, in the variables of ``CompiledTape``.
        macs: Monomials of its multiply-adds.
        chunkings: Ways of dividing tensors into chunks.
        parts: What each of them divides.
    """

    tape: Tape
    buffers: list[Monomial]
    macs: list[Monomial]
    chunkings: tuple[Chunking, ...] = ()
    parts: tuple[Linear, ...] = ()

    def variables(self, units: Sequence[int], sizes: Sequence[Sequence[int]]) -> list[int]:
        """Return the variables for units and sizes of all chunks, none of which is empty."""
        return _variables(units, sizes, self.chunkings)


def _most(chunkings: Sequence[Chunking]) -> int:
    return max((way.most for way in chunkings), default=0)


def _variables(
    units: Sequence[int], sizes: Sequence[Sequence[int]], chunkings: Sequence[Chunking]
) -> list[int]:
    most = _most(chunkings)
    flat = [size for own in sizes for size in (*own, *[0] * (most - len(own)))]
    return [*units, *flat, *(min(size, 1) for size in flat)]


def read_markers(
    trace: Trace, forms: Sequence[Linear], *, groups: int, chunks: MarkedChunks | None
) -> Reading:
    """Trace a step at marker widths and derive its polynomials.

    Args:
        trace: Traces the step.
        forms: Forms that occur in the parameters' shapes.
        groups: Number of channel groups.
        chunks: Divides tensors into chunks of marked sizes. None if no tensor is divided.

    Raises:
        UndecidedError: If some dimension has no unique explanation.
        MemoryModelError: If the step can't be traced.
    """
    units = _marker_units(groups, MARKERS if chunks is None else WIDE_MARKERS)
    tape = trace(units, MARKER_BATCH, chunks)
    ways, sizes = (chunks.chunkings, chunks.sizes) if chunks else ([], [])
    most = _most(ways)
    places = [
        groups + way * most + place for way, own in enumerate(sizes) for place in range(len(own))
    ]
    singles = [Linear(0, ((variable, 1),)) for variable in (*range(groups), *places)]
    variables = _variables(units, sizes, ways)
    decoder = MarkerDecoder(
        [*singles, *forms],
        units=variables,
        smallest=min((*units, *(size for own in sizes for size in own)), default=0),
        batch_size=MARKER_BATCH,
    )
    buffers = [
        _existing(decoder.product(dims), chunk, groups=groups, ways=len(ways), most=most)
        for dims, chunk in zip(tape.dims, tape.chunks, strict=True)
    ]
    macs = [decoder.product(dims) for dims in tape.macs]
    parts = tuple(_linear(decoder.dimension(way.parts)) for way in ways)
    return Reading(tape, buffers, macs, tuple(ways), parts)


def _existing(
    size: Monomial, chunk: tuple[int, int] | None, *, groups: int, ways: int, most: int
) -> Monomial:
    """Let a buffer that is made for a chunk count only if the chunk exists. The first always does.

    A buffer that has the size of its chunk needs nothing for that.
    """
    if chunk is None or chunk[1] == 0:
        return size
    own = groups + chunk[0] * most + chunk[1]
    if Linear(0, ((own, 1),)) in size.factors:
        return size
    return size * Monomial(1, factors=(Linear(0, ((own + ways * most, 1),)),))


def _linear(parts: Monomial) -> Linear:
    """Convert what is divided into chunks to a linear form."""
    if parts.batch_power or len(parts.factors) != 1:
        raise MemoryModelError("a tensor is divided along a dimension that is not a channel count")
    (factor,) = parts.factors
    slopes = tuple((group, parts.coefficient * slope) for group, slope in factor.slopes)
    return Linear(parts.coefficient * factor.constant, slopes)


def _marker_units(groups: int, limits: tuple[int, int]) -> list[int]:
    """Draw distinct primes, so that different products of markers have different values."""
    low, high = limits
    sieve = np.ones(high, dtype=bool)
    for number in range(2, int(high**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = False
    primes = np.flatnonzero(sieve[low:]) + low
    return [int(p) for p in np.random.default_rng(0).choice(primes, size=groups, replace=False)]


def check_widths(full: Sequence[int], *, chunked: bool) -> list[int]:
    """Choose few units per group, to reveal operators that depend on channel counts.

    Args:
        full: Units of each group in the unpruned network.
        chunked: Whether tensors may be divided into chunks, which takes some units.
    """
    rng = np.random.default_rng(1)
    if chunked:
        return [int(units) for units in rng.integers(16, 32, size=len(full))]
    return [min(count, int(rng.integers(2, max(5, count // 4)))) for count in full]
