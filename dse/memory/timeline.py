"""What one candidate's step holds, moment by moment, and what it holds at its peak."""

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
    """The moment of the peak.

    Attributes:
        peak_bytes: all that is held then.
        peak_activation_bytes: input, saved and temporary among it.
        categories: bytes by category; they add up to ``peak_bytes``.
        phase, operator, module: where it happens; in backward the forward module's name.
    """

    peak_bytes: int
    peak_activation_bytes: int
    categories: dict[str, int]
    phase: str
    operator: str
    module: str

    def to_json(self) -> dict[str, Any]:
        """As the command line prints it."""
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
        categories: names of the columns of ``bytes``.
        bytes: (moments, categories) int64.
        sites: per moment, where in the step.
        peak_index: the first moment at which the most is held.
    """

    categories: tuple[str, ...]
    bytes: NDArray[np.int64]
    sites: tuple[Site, ...]
    peak_index: int

    @property
    def phases(self) -> list[str]:
        """Per moment: forward, backward or optimizer."""
        return [site.phase for site in self.sites]

    @property
    def operators(self) -> list[str]:
        """Per moment: the operator running then."""
        return [site.operator for site in self.sites]

    @property
    def modules(self) -> list[str]:
        """Per moment: the module running then."""
        return [site.module for site in self.sites]

    def breakdown(self) -> Breakdown:
        """The peak alone."""
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
    """Per event the category a buffer leaves and the one it enters, -1 for none: (events, 2)."""
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
    """The timeline of one candidate: (groups,) units."""
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
    """The timeline with what operators hold beside their results, as a category of its own.

    Args:
        timeline: of tensors alone.
        positions: per operator with workspace, how many events came before its end.
        workspace: per such operator, its bytes.
        lasting: bytes that libraries keep all the time.
    """
    column = np.zeros((len(timeline.bytes), 1), dtype=np.int64)
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
    """Category, birth site and bytes of every buffer that is alive at one candidate's peak."""
    peak = make_timeline(tape, changes, units, batch_size).peak_index
    sizes = tape.terms_at(units, batch_size)[tape.buffer_terms]
    alive: dict[int, tuple[int, int]] = {}  # buffer -> category now, site of its birth
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
