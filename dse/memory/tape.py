"""The tape: every buffer of one training step, with its birth, death, category and dimensions."""

from dataclasses import dataclass
from enum import IntEnum

from dse.memory.operator_run import OperatorRun
from dse.memory.site import Site

CATEGORIES = (
    "weights",
    "buffers",
    "gradients",
    "optimizer_state",
    "input",
    "optimizer_temporary",
    "saved",
    "temporary",
)
"""Categories of buffers. A buffer has the first that applies. Only the last two may change."""

ACTIVATION = ("input", "saved", "temporary")
"""Categories of *activation* memory: everything that a step holds except weights, buffers,
gradients, optimizer state and the optimizer's temporaries."""

WORKSPACE = "workspace"
"""Category of what operators hold in addition to tensors, under the ``allocator`` convention."""


class Event(IntEnum):
    """A change in the life of a buffer."""

    BIRTH = 0
    DEATH = 1
    SAVE = 2  # an autograd node begins to hold the buffer
    RELEASE = 3  # the last such node releases it


@dataclass(frozen=True)
class Tape:
    """The recording of one traced step.

    Attributes:
        dims: Dimensions of each buffer, with the element size in bytes last. Their product is its
            size.
        float_bytes: Element size of each buffer of floating-point elements, 0 for other buffers. A
            device with another precision changes these sizes.
        category: Category of each buffer, ``temporary`` if it may become ``saved``.
        events: Rows of event, buffer and site, in order.
        sites: Sites that the events refer to.
        macs: Tuples of dimensions whose products sum to the forward pass's multiply-adds.
        chunks: For each buffer, the chunk that is being computed when it is made, as a way of
            dividing and a number. None outside of chunks, and where chunks aren't distinguished.
        runs: Every operator that may allocate, in order. Only recorded for a given device.
    """

    dims: tuple[tuple[int, ...], ...]
    float_bytes: tuple[int, ...]
    category: tuple[str, ...]
    events: tuple[tuple[Event, int, int], ...]
    sites: tuple[Site, ...]
    macs: tuple[tuple[int, ...], ...]
    chunks: tuple[tuple[int, int] | None, ...]
    runs: tuple[OperatorRun, ...] = ()

    def operations(self) -> tuple[object, ...]:
        """Return everything but sizes: equal for two networks that run the same operators."""
        ranks = tuple(len(d) for d in self.dims)
        return (self.category, self.events, self.sites, ranks, self.chunks)
