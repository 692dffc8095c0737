"""The `arena` convention: memory of a device that places every buffer before it runs.

Microcontrollers have no allocator, so each buffer of the step gets a fixed address in advance. The
buffers and their lifetimes are those of the memory model's tape, for training and for inference:

1. Weights, registered buffers, the optimizer's state and the input live through the whole step.
   They are stacked at the bottom (*resident*), or not counted (``elsewhere``, e.g. weights in
   flash).
2. Results of elementwise operators reuse the memory of an input that dies (see ``folding``).
3. Everything else is placed by TensorFlow Lite Micro's greedy rule (see ``placement``). No
   placement can be lower than the largest number of bytes alive at one moment: the *lower bound*.

Sizes are rounded up to 16 bytes, as in TensorFlow Lite Micro. The buffers are those of PyTorch's
CPU operators. An engine that fuses batch norm into convolutions has fewer.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.errors import MemoryModelError
from dse.memory.compiled import CompiledTape, undominated
from dse.memory.folding import in_place_results
from dse.memory.placement import place
from dse.memory.site import Site
from dse.memory.tape import CATEGORIES, Event

Ints = NDArray[np.int64]

ALIGNMENT_BYTES = 16
ELEMENT_BITS = (8, 16, 32)
LIFELONG = ("weights", "buffers", "optimizer_state", "input")


@dataclass(frozen=True)
class Block:
    """A unit of placement: a buffer of the tape, with the buffers that are folded into it.

    Attributes:
        buffers: Indices of the buffers in the tape, in order of birth.
        category: Category of the first buffer.
        born: Site where the first buffer is born.
        first_moment, last_moment: First and last moment of its life, both inclusive. Moments are
            the step's local maxima.
    """

    buffers: tuple[int, ...]
    category: str
    born: Site
    first_moment: int
    last_moment: int


@dataclass(frozen=True)
class ArenaLayout:
    """The buffers to place, for every candidate of one tape.

    Attributes:
        tape: Tape that gives the sizes.
        element_bits: Bits of a floating-point element on the device.
        resident: Indices of the buffers that live through the whole step.
        blocks: All other buffers that are not empty, after folding.
    """

    tape: CompiledTape
    element_bits: int
    resident: tuple[int, ...]
    blocks: tuple[Block, ...]

    @cached_property
    def lives(self) -> tuple[Ints, Ints]:
        """First and last moment of each block, two arrays of shape (blocks,)."""
        lives = [(block.first_moment, block.last_moment) for block in self.blocks]
        first, last = np.array(lives, dtype=np.int64).reshape(-1, 2).T
        return np.ascontiguousarray(first), np.ascontiguousarray(last)

    @cached_property
    def forms(self) -> tuple[Ints, Ints]:
        """Distinct (term, element size) pairs, (forms, 2), and each block's index, (blocks,)."""
        own = [block.buffers[0] for block in self.blocks]
        pairs = np.stack([self.tape.buffer_terms, self.tape.buffer_float_bytes], axis=1)
        used = pairs[[*self.resident, *own]].reshape(-1, 2)
        forms, which = np.unique(used, axis=0, return_inverse=True)
        return forms, which.ravel()[len(self.resident) :]

    @cached_property
    def moment_counts(self) -> NDArray[np.float64]:
        """Number of blocks of each form alive at each undominated moment: (moments, forms)."""
        forms, of_block = self.forms
        first, last = self.lives
        counts = np.zeros((int(last.max(initial=0)) + 1, len(forms)), dtype=np.int64)
        for form, begin, end in zip(of_block, first, last, strict=True):
            counts[begin : end + 1, form] += 1
        return undominated(counts).astype(np.float64)

    @cached_property
    def resident_counts(self) -> Ints:
        """Number of resident buffers of each form: (forms,)."""
        forms, _ = self.forms
        pairs = np.stack([self.tape.buffer_terms, self.tape.buffer_float_bytes], axis=1)
        own = pairs[list(self.resident)].reshape(-1, 2)
        return np.array([(own == form).all(axis=1).sum() for form in forms], dtype=np.int64)

    def resident_bytes(self, units: Ints, *, batch_size: int) -> dict[str, int]:
        """Return the resident bytes of a candidate, units of shape (groups,), by category."""
        forms, _ = self.forms
        sizes = self.form_bytes(units[None], batch_size)[0]
        index = {
            tuple(form): size for form, size in zip(forms.tolist(), sizes.tolist(), strict=True)
        }
        held: dict[str, int] = {}
        for buffer in self.resident:
            form = (int(self.tape.buffer_terms[buffer]), int(self.tape.buffer_float_bytes[buffer]))
            name = CATEGORIES[self.tape.buffer_categories[buffer]]
            held[name] = held.get(name, 0) + index[form]
        return held

    def form_bytes(self, units: Ints, batch_size: int) -> Ints:
        """Return the aligned sizes of all forms, shape (n, forms), for units (n, groups)."""
        tape, (forms, _) = self.tape, self.forms
        terms, float_bytes = forms.T
        widths = tape.variables(units) @ tape.slopes.T + tape.constants
        sizes = widths[:, tape.factors[terms]].prod(axis=2)
        sizes *= tape.coefficients[terms] * np.int64(batch_size) ** tape.batch_powers[terms]
        bits = np.where(float_bytes > 0, self.element_bits, 8)
        elements = sizes // np.maximum(float_bytes, 1)
        rounded: Ints = -(-elements * bits // (8 * ALIGNMENT_BYTES)) * ALIGNMENT_BYTES
        return rounded


@dataclass(frozen=True)
class Placement:
    """The arena of one candidate.

    Attributes:
        arena_bytes: Size of the arena with greedy placement, including resident bytes.
        lower_bound_bytes: Smallest possible size with any placement, including resident bytes.
        resident_bytes: Bytes of the buffers that live through the whole step.
        blocks: The placed blocks.
        offset_bytes, size_bytes: Offset and size of each block, shape (blocks,). The resident bytes
            lie below.
    """

    arena_bytes: int
    lower_bound_bytes: int
    resident_bytes: int
    blocks: tuple[Block, ...]
    offset_bytes: Ints
    size_bytes: Ints


def arena_layout(
    tape: CompiledTape,
    *,
    element_bits: int = 32,
    in_place: bool = True,
    elsewhere: Collection[str] = (),
) -> ArenaLayout:
    """Prepare a tape for placement.

    Args:
        tape: Tape of a training step or of inference.
        element_bits: Bits of each floating-point element: 32, 16 or 8. Other elements keep their
            size.
        in_place: Whether elementwise results reuse the memory of inputs that die.
        elsewhere: Categories that are not in the arena, e.g. ``("weights", "buffers")``.

    Raises:
        MemoryModelError: If the element size or a category is unknown.
    """
    if element_bits not in ELEMENT_BITS:
        raise MemoryModelError(
            f"element_bits must be one of {', '.join(map(str, ELEMENT_BITS))}, not {element_bits}"
        )
    for name in elsewhere:
        if name not in CATEGORIES:
            raise MemoryModelError(f"unknown category {name!r}; use {', '.join(CATEGORIES)}")
    names = [CATEGORIES[category] for category in tape.buffer_categories]
    sized = tape.coefficients[tape.buffer_terms] > 0
    kept = [bool(has) and name not in elsewhere for has, name in zip(sized, names, strict=True)]
    return ArenaLayout(
        tape=tape,
        element_bits=element_bits,
        resident=tuple(b for b, name in enumerate(names) if kept[b] and name in LIFELONG),
        blocks=_blocks(
            tape,
            placed={b for b, name in enumerate(names) if kept[b] and name not in LIFELONG},
            folded=in_place_results(tape) if in_place else {},
        ),
    )


def arena_placement(layout: ArenaLayout, units: ArrayLike, *, batch_size: int) -> Placement:
    """Place the buffers of one candidate.

    Args:
        layout: The buffers to place.
        units: Channel counts divided by their group's ``multiple``, shape (groups,).
        batch_size: Images per step.

    Raises:
        MemoryModelError: If the units do not match the groups, or the batch size is below 1.
    """
    form_bytes = layout.form_bytes(_checked(layout, units, batch_size)[None], batch_size)[0]
    _, of_block = layout.forms
    sizes = form_bytes[of_block]
    first, last = (life.tolist() for life in layout.lives)
    offsets = np.array(place(sizes.tolist(), first=first, last=last), dtype=np.int64)
    resident = int(form_bytes @ layout.resident_counts)
    # Integers below 2**53 are exact in double precision, so the bound is exact.
    bound = (layout.moment_counts @ form_bytes.astype(np.float64)).max()
    return Placement(
        arena_bytes=resident + int((offsets + sizes).max(initial=0)),
        lower_bound_bytes=resident + int(bound),
        resident_bytes=resident,
        blocks=layout.blocks,
        offset_bytes=offsets + resident,
        size_bytes=sizes,
    )


def _checked(layout: ArenaLayout, units: ArrayLike, batch_size: int) -> Ints:
    counts = np.asarray(units)
    groups = layout.tape.groups
    if not groups and not counts.size:  # NumPy makes an empty list an array of floats
        counts = counts.astype(np.int64)
    if counts.shape != (groups,) or counts.dtype.kind not in "iu":
        raise MemoryModelError(
            f"units must be whole numbers of shape ({groups},), one a group, "
            f"not {counts.dtype} {counts.shape}"
        )
    if (counts < 1).any():
        raise MemoryModelError(f"units must be at least 1, not {counts.min()}")
    if batch_size < 1:
        raise MemoryModelError(f"batch_size must be at least 1, not {batch_size}")
    return counts.astype(np.int64)


def _blocks(tape: CompiledTape, *, placed: set[int], folded: dict[int, int]) -> tuple[Block, ...]:
    """Join folded buffers into blocks, and read their lifetimes from the tape in moments.

    A moment begins with the first birth after a death. Two blocks overlap at some event of the tape
    if and only if they overlap at some moment.
    """
    folded = {new: old for new, old in folded.items() if new in placed and old in placed}
    successor = {old: new for new, old in folded.items()}
    chains: dict[int, list[int]] = {}
    sites: dict[int, Site] = {}
    lives: dict[int, list[int]] = {}
    moment, growing = -1, False
    for kind, buffer, site in tape.events.tolist():
        if buffer not in placed:
            continue
        if kind == Event.BIRTH and buffer not in folded:
            # A new moment begins only if something died since the last birth.
            moment += not growing
            growing = True
            chain = chains[buffer] = [buffer]
            while chain[-1] in successor:
                chain.append(successor[chain[-1]])
            sites[buffer], lives[chain[-1]] = tape.sites[site], [moment, -1]
        elif kind == Event.DEATH and buffer not in successor:
            growing = False
            lives[buffer][1] = moment
    return tuple(
        Block(
            buffers=tuple(chain),
            category=CATEGORIES[tape.buffer_categories[first]],
            born=sites[first],
            first_moment=lives[chain[-1]][0],
            last_moment=moment if lives[chain[-1]][1] < 0 else lives[chain[-1]][1],
        )
        for first, chain in chains.items()
    )
