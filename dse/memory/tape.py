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
"""What a buffer counts as: the first that fits. Only the last two change during its life."""

ACTIVATION = ("input", "saved", "temporary")
"""The categories that make up *activation* memory: all that the step holds beyond weights,
buffers, gradients, optimizer state and the optimizer's temporaries."""

WORKSPACE = "workspace"
"""What operators hold beside tensors while they run: counted by the ``allocator`` convention."""


class Event(IntEnum):
    """What happens to a buffer."""

    BIRTH = 0
    DEATH = 1
    SAVE = 2  # an autograd node begins to hold it
    RELEASE = 3  # the last such node lets go


@dataclass(frozen=True)
class Tape:
    """One traced step.

    Attributes:
        dims: per buffer its dimensions, the element size in bytes last; their product is its size.
        float_bytes: per buffer its element size where elements are floating-point, 0 elsewhere;
            what a device of another precision would shrink.
        category: per buffer its category for life; ``temporary`` where it may become ``saved``.
        events: (event, buffer, site) in order.
        sites: what ``events`` point into.
        macs: dimensions whose products add up to the forward pass's multiply-adds.
        runs: every operator that may allocate, in order; noted for one device alone.
    """

    dims: tuple[tuple[int, ...], ...]
    float_bytes: tuple[int, ...]
    category: tuple[str, ...]
    events: tuple[tuple[Event, int, int], ...]
    sites: tuple[Site, ...]
    macs: tuple[tuple[int, ...], ...]
    runs: tuple[OperatorRun, ...] = ()

    def operations(self) -> tuple[object, ...]:
        """Everything but sizes: equal for two networks that run the same operators."""
        return (self.category, self.events, self.sites, tuple(len(d) for d in self.dims))
