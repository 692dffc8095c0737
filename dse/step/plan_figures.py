"""Figures of a lean step's plan: what each block holds and takes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BlockFigures:
    """What one block of a lean step does.

    Attributes:
        block: The module that it belongs to.
        level: What it does.
        chunks: Number of chunks, or of slices of channels.
        recognised: Whether lean training can run all of its calls; the others run as stock PyTorch.
        held_bytes: Bytes that it holds from its forward to its backward pass. None if the network
            can't be traced as a whole.
        time_share: Share of the step's estimated time, 0 to 1. None as above.
    """

    block: str
    level: str
    chunks: int
    recognised: bool
    held_bytes: int | None = None
    time_share: float | None = None


@dataclass(frozen=True)
class PlanFigures:
    """A plan with its figures.

    Attributes:
        blocks: Its blocks in order.
        untraced: Modules that run as stock PyTorch because they could not be traced.
        time: Estimated time of a step as a share of the stock step's. None if the network can't be
            traced as a whole.
    """

    blocks: tuple[BlockFigures, ...]
    untraced: tuple[str, ...] = ()
    time: float | None = None
