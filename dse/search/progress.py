"""How a run tells what it is doing, and how long it has still to go."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from dse.names import Fidelity
from dse.results.front import hypervolume, maximised, non_dominated
from dse.results.records import TrialRecord

Phase = Literal["pretraining", "reference", "baselines", "search", "finalists"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands.

    Attributes:
        phase: what is being done.
        done, total: evaluations of this phase; in `search`, candidates trained or failed.
        states: trials of the study by state.
        front_size: members of the front among the trained candidates that fit a budget.
        best: accuracy of the best trained candidate, or baseline entered as a trial, that fits each
            budget in bytes; without those that nothing fits yet.
        hypervolume: of that front, as a share of the box between the reference point (chance, the
            unpruned network's costs) and the ideal (every image right, at no cost).
        elapsed_seconds: since this process began.
        remaining_seconds: estimate for the whole run; None before anything was trained.
    """

    phase: Phase
    done: int
    total: int
    states: Mapping[str, int]
    front_size: int
    best: Mapping[int, float]
    hypervolume: float
    elapsed_seconds: float
    remaining_seconds: float | None


class Observer(Protocol):
    """Is told what a run does; the command line draws its progress from it."""

    def on_phase(self, name: Phase, total: int) -> None:
        """A phase begins, with so many evaluations to make."""

    def on_trial(self, record: TrialRecord, progress: Progress) -> None:
        """A trial ended, trained or gated."""

    def on_evaluation(self, label: str, accuracy: float, progress: Progress) -> None:
        """A baseline, or one seed of a finalist, was scored."""

    def on_progress(self, share: float) -> None:
        """The training under way has done this share, from 0 to 1, of its work."""

    def on_message(self, text: str) -> None:
        """Something the user should read, in one line."""


class Silent:
    """Observes and says nothing."""

    def on_phase(self, name: Phase, total: int) -> None:
        """Ignore it."""

    def on_trial(self, record: TrialRecord, progress: Progress) -> None:
        """Ignore it."""

    def on_evaluation(self, label: str, accuracy: float, progress: Progress) -> None:
        """Ignore it."""

    def on_progress(self, share: float) -> None:
        """Ignore it."""

    def on_message(self, text: str) -> None:
        """Ignore it."""


@dataclass
class Meter:
    """Counts, times and measures a run as it goes.

    Attributes:
        objectives: the study's.
        reference: per objective, what a point must beat.
        full_to_short: how many times dearer an evaluation at `full` is taken to be than one at
            `short`, until one was timed.
        trials: candidates to train in the search.
        full_evaluations: evaluations at `full` still to make after the search.
        started: when the process began, on the clock.
        budgets: bytes.
        clock: seconds, never going back.
    """

    objectives: Sequence[str]
    reference: Mapping[str, float]
    full_to_short: float
    trials: int
    full_evaluations: int
    started: float
    budgets: Sequence[int]
    clock: Callable[[], float] = time.monotonic
    phase: Phase = "baselines"
    done: int = 0
    total: int = 0
    deadline: float | None = None
    states: Counter[str] = field(default_factory=Counter)
    seeded: int = 0
    failed: int = 0
    _baselines: list[list[float]] = field(default_factory=list)
    _points: list[list[float]] = field(default_factory=list)
    _best: dict[int, float] = field(default_factory=dict)
    _seconds: dict[Fidelity, list[float]] = field(default_factory=dict)

    def begin(self, phase: Phase, *, total: int, done: int = 0) -> None:
        """Begin a phase."""
        self.phase, self.total, self.done = phase, total, done

    def count(self, record: TrialRecord) -> None:
        """Count a trial that ended, and towards the front if it was trained."""
        self.states[record.state] += 1
        if record.accuracy is not None:
            for budget in self.budgets:
                if record.peak_bytes <= budget:
                    self._best[budget] = max(record.accuracy, self._best.get(budget, 0.0))
        if record.baseline is not None:
            self.seeded += 1
        elif record.state == "complete":
            if record.peak_bytes <= max(self.budgets):  # without a gate others are trained too
                self.add_point(record.values)
            self.add_time("short", record.wall_seconds)
            self.done += self.phase == "search"
        elif record.state == "stopped":
            self.done += self.phase == "search"
        elif record.state == "failed" and record.failure is not None:  # not to be drawn again
            self.failed += 1
            self.done += self.phase == "search"

    @property
    def trained(self) -> int:
        """Candidates that the search trained, to the end or to their rungs; no baselines."""
        return self.states["complete"] + self.states["stopped"] - self.seeded

    def add_point(self, values: Mapping[str, float], *, baseline: bool = False) -> None:
        """Count a trained candidate that fits a budget, or such a baseline, towards the front."""
        points = self._baselines if baseline else self._points
        points.append([values[objective] for objective in self.objectives])

    def risen(self, window: int) -> float | None:
        """Return by how much the hypervolume rose over the last trained candidates.

        Args:
            window: how many of them.

        Returns:
            A share of the reference box; None before so many were trained.
        """
        if len(self._points) < window:
            return None
        before = self._hypervolume([*self._baselines, *self._points[:-window]])
        return self._hypervolume([*self._baselines, *self._points]) - before

    def add_time(self, fidelity: Fidelity, wall_seconds: float) -> None:
        """Note how long an evaluation took."""
        self._seconds.setdefault(fidelity, []).append(wall_seconds)

    @property
    def now(self) -> Progress:
        """Where the run stands."""
        signs = maximised(self.objectives)
        known = [*self._baselines, *self._points]
        points = np.unique(np.array(known).reshape(-1, len(self.objectives)), axis=0)
        return Progress(
            phase=self.phase,
            done=self.done,
            total=self.total,
            states=dict(self.states),
            front_size=int(non_dominated(points, maximise=signs).sum()),
            best=dict(self._best),
            hypervolume=self._hypervolume(known),
            elapsed_seconds=self.clock() - self.started,
            remaining_seconds=self._remaining(),
        )

    def _hypervolume(self, points: Sequence[Sequence[float]]) -> float:
        signs = maximised(self.objectives)
        bound = [self.reference[objective] for objective in self.objectives]
        ideal = [1.0 if sign else 0.0 for sign in signs]
        box = float(np.prod(np.abs(np.array(bound) - ideal)))
        values = np.array(points, dtype=np.float64).reshape(-1, len(self.objectives))
        return hypervolume(values, reference=bound, maximise=signs) / box

    def _remaining(self) -> float | None:
        short, full = (self._seconds.get(fidelity, []) for fidelity in ("short", "full"))
        if not short and not full:
            return None
        short_seconds = float(np.mean(short)) if short else 0.0
        full_seconds = float(np.mean(full)) if full else short_seconds * self.full_to_short
        left = max(0, self.total - self.done)
        if self.phase == "finalists":
            return left * full_seconds
        if self.phase in ("reference", "baselines"):
            left += max(0, self.trials - self.trained - self.failed)
        search = left * short_seconds
        if self.deadline is not None:
            search = min(search, max(0.0, self.deadline - self.clock()))
        return search + self.full_evaluations * full_seconds
