"""The plan of a lean network: what each of its segments does."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

Level = Literal["stock", "lean", "chunked", "recomputed"]
"""What a segment does: run as stock PyTorch; hold only what the backward pass needs, and compute
the rest again; compute its widest tensor in chunks of channels; or hold its input alone."""

SavedBits = Literal[32, 8]
"""Bits of a number that is held until the backward pass. With 8, gradients are inexact."""


class Choice(NamedTuple):
    """What a segment does.

    Attributes:
        level: The level.
        chunks: If the level is ``chunked``, the number of chunks. If it is ``lean`` or
            ``recomputed``, the number of slices of channels in which normalisations, activations
            and depthwise convolutions run; 1 runs them at once.
        rerun: If the level is ``lean``, names of the layers' calls that run again instead of having
            their outputs held.
    """

    level: Level
    chunks: int = 1
    rerun: tuple[str, ...] = ()


@dataclass(frozen=True)
class SegmentPlan:
    """What one segment does.

    Attributes:
        title: The module that it belongs to.
        first, last: Names of its first and last call in the traced graph.
        level, chunks, rerun: What it does: see ``Choice``.
        recognised: Whether every call of the segment is one that lean training can run. Others run
            as stock PyTorch, or are recomputed as a whole.
        span: Names of the first and last call of what can be computed in chunks, if anything, and
            whether the last sums over the channels. At other widths the plan keeps it: a depthwise
            convolution of one channel would look like any other.
    """

    title: str
    first: str
    last: str
    level: Level
    chunks: int = 1
    rerun: tuple[str, ...] = ()
    recognised: bool = True
    span: tuple[str, str, bool] | None = None

    @property
    def choice(self) -> Choice:
        """What it does."""
        return Choice(self.level, self.chunks, self.rerun)


@dataclass(frozen=True)
class ProgramPlan:
    """The plan of one part of a network that could be traced.

    Attributes:
        module: Name of that part, empty for the whole network.
        segments: Its segments in order.
        saved_bits: Bits of a number that is held until the backward pass.
    """

    module: str
    segments: tuple[SegmentPlan, ...]
    saved_bits: SavedBits = 32

    @property
    def packs(self) -> bool:
        """Whether values are held in 8 bits."""
        return self.saved_bits < 32  # noqa: PLR2004  # bits of a float32


@dataclass(frozen=True)
class LeanPlan:
    """The plan of a lean network. Printed, it is a table.

    Attributes:
        programs: Parts of the network that could be traced.
        untraced: Modules that run as stock PyTorch because they could not be traced.
        peak_bytes: Predicted peak of a step. None where no budget was given.
        stock_peak_bytes: The same of the stock network. None where no budget was given.
        time: Predicted time of a step as a share of the stock network's. None where no budget was
            given.
    """

    programs: tuple[ProgramPlan, ...]
    untraced: tuple[str, ...] = ()
    peak_bytes: int | None = None
    stock_peak_bytes: int | None = None
    time: float | None = None

    def divides_like(self, other: "LeanPlan") -> bool:
        """Whether another plan has the same segments, with the same parts to compute in chunks."""

        def lines(plan: LeanPlan) -> list[object]:
            return [
                (part.module, [(each.last, each.span) for each in part.segments])
                for part in plan.programs
            ]

        return lines(self) == lines(other)

    def __str__(self) -> str:
        """Return a table with a row for every segment."""
        rows = [("block", "level", "chunks", "run again", "")]
        for program in self.programs:
            prefix = f"{program.module}." if program.module else ""
            for segment in program.segments:
                chunks = str(segment.chunks) if segment.chunks > 1 else ""
                rerun = str(len(segment.rerun) or "")
                note = "" if segment.recognised else "not recognised"
                rows.append((prefix + segment.title, segment.level, chunks, rerun, note))
        rows += [(name, "stock", "", "", "can't be traced") for name in self.untraced]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, *self._summary()])

    def _summary(self) -> Iterator[str]:
        if self.peak_bytes is not None and self.stock_peak_bytes is not None:
            share = 100 * self.peak_bytes / self.stock_peak_bytes
            yield f"peak {self.peak_bytes:,} bytes, {share:.1f} % of stock PyTorch's"
        if self.time is not None:
            yield f"predicted time {self.time:.2f} x stock PyTorch's"
