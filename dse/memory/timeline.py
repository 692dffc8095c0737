"""The bytes that one candidate's step holds over time, and at its peak."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dse.memory.compiled import CompiledTape
from dse.memory.site import Site
from dse.memory.tape import ACTIVATION, CATEGORIES, WORKSPACE, Event

_SAVED = CATEGORIES.index("saved")
_TEMPORARY = CATEGORIES.index("temporary")
_NOWHERE = -1


@dataclass(frozen=True)
class Breakdown:
    """What a step holds at its peak, and where the peak occurs.

    Attributes:
        peak_bytes: All bytes held at the peak.
        peak_activation_bytes: Those of the categories input, saved and temporary.
        categories: Bytes by category, whose sum is ``peak_bytes``.
        phase, operator, module: Where the peak occurs. In the backward pass, ``module`` is the
            module whose forward created the autograd node.
    """

    peak_bytes: int
    peak_activation_bytes: int
    categories: dict[str, int]
    phase: str
    operator: str
    module: str

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that the command line prints."""
        return {
            "peak_bytes": self.peak_bytes,
            "peak_activation_bytes": self.peak_activation_bytes,
            "categories": self.categories,
            "peak_at": {
                "phase": self.phase,
                "operator": self.operator,
                "module": self.module,
            },
        }


@dataclass(frozen=True)
class Timeline:
    """Bytes held after each event of a step.

    Attributes:
        categories: Names of the columns of ``bytes``.
        bytes: Bytes held, int64 of shape (moments, categories).
        sites: Site of each moment in the step.
        peak_index: First moment at which most bytes are held.
    """

    categories: tuple[str, ...]
    bytes: NDArray[np.int64]
    sites: tuple[Site, ...]
    peak_index: int

    @property
    def phases(self) -> list[str]:
        """Phase of each moment: ``forward``, ``backward`` or ``optimizer``."""
        return [site.phase for site in self.sites]

    @property
    def operators(self) -> list[str]:
        """Operator that runs at each moment."""
        return [site.operator for site in self.sites]

    @property
    def modules(self) -> list[str]:
        """Module that runs at each moment."""
        return [site.module for site in self.sites]

    def breakdown(self) -> Breakdown:
        """Return the breakdown of the peak."""
        row = self.bytes[self.peak_index]
        categories = {name: int(held) for name, held in zip(self.categories, row, strict=True)}
        site = self.sites[self.peak_index]
        return Breakdown(
            peak_bytes=int(row.sum()),
            peak_activation_bytes=sum(categories[name] for name in ACTIVATION),
            categories=categories,
            phase=site.phase,
            operator=site.operator,
            module=site.module,
        )


def category_changes(tape: CompiledTape) -> NDArray[np.int64]:
    """Return the categories that a buffer leaves and enters at each event, or -1: (events, 2)."""
    current = tape.buffer_categories.copy()
    changes = np.full((len(tape.events), 2), _NOWHERE, dtype=np.int64)
    for position, (event, buffer, _) in enumerate(tape.events):
        if event == Event.BIRTH:
            changes[position, 1] = current[buffer]
        elif event == Event.DEATH:
            changes[position, 0] = current[buffer]
        elif event == Event.SAVE and current[buffer] == _TEMPORARY:
            current[buffer] = _SAVED
            changes[position] = _TEMPORARY, _SAVED
        elif event == Event.RELEASE and current[buffer] == _SAVED:
            current[buffer] = _TEMPORARY
            changes[position] = _SAVED, _TEMPORARY
    return changes


def make_timeline(
    tape: CompiledTape, changes: NDArray[np.int64], units: NDArray[np.int64], batch_size: int
) -> Timeline:
    """Build the timeline of one candidate, units of shape (groups,)."""
    sizes = tape.terms_at(units, batch_size)[tape.buffer_terms][tape.events[:, 1]]
    deltas = np.zeros((len(tape.events), len(CATEGORIES)), dtype=np.int64)
    moments = np.arange(len(tape.events))
    for column, sign in ((0, -1), (1, 1)):
        touched = changes[:, column] != _NOWHERE
        deltas[moments[touched], changes[touched, column]] += sign * sizes[touched]
    held = deltas.cumsum(axis=0)
    return Timeline(
        categories=CATEGORIES,
        bytes=held,
        sites=tuple(tape.sites[site] for site in tape.events[:, 2]),
        peak_index=int(held.sum(axis=1).argmax()),
    )


def with_workspace(
    timeline: Timeline,
    positions: NDArray[np.int64],
    workspace: Sequence[int],
    *,
    lasting: int = 0,
) -> Timeline:
    """Add what operators hold in addition to their results, as a category of its own.

    Args:
        timeline: Timeline of the tensors.
        positions: For each operator, the number of events before its end, shape (operators,).
        workspace: Workspace bytes of each of these operators.
        lasting: Bytes that libraries hold throughout the step.
    """
    column = np.zeros((len(timeline.bytes), 1), dtype=np.int64)
    # An operator holds its workspace when its results are born, the last events before its end.
    np.maximum.at(column[:, 0], positions - 1, np.array(workspace, dtype=np.int64))
    column += lasting
    held = np.hstack([timeline.bytes, column])
    return Timeline(
        categories=(*timeline.categories, WORKSPACE),
        bytes=held,
        sites=timeline.sites,
        peak_index=int(held.sum(axis=1).argmax()),
    )


def buffers_at_peak(
    tape: CompiledTape, changes: NDArray[np.int64], units: NDArray[np.int64], batch_size: int
) -> list[tuple[str, Site, int]]:
    """Return category, birth site and bytes of every buffer alive at one candidate's peak."""
    peak = make_timeline(tape, changes, units, batch_size).peak_index
    sizes = tape.terms_at(units, batch_size)[tape.buffer_terms]
    alive: dict[int, tuple[int, int]] = {}  # buffer -> (current category, site of its birth)
    for (left, entered), (_, buffer, site) in zip(
        changes[: peak + 1].tolist(), tape.events[: peak + 1].tolist(), strict=True
    ):
        if entered != _NOWHERE:
            alive[buffer] = (entered, alive[buffer][1] if left != _NOWHERE else site)
        elif left != _NOWHERE:
            del alive[buffer]
    return [
        (CATEGORIES[category], tape.sites[site], int(sizes[buffer]))
        for buffer, (category, site) in alive.items()
    ]
