"""A run's progress: its observer interface, counters and the estimate of the time left."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from dse.measures import Measure, measure_of
from dse.names import Fidelity
from dse.results.candidate_records import TrialRecord
from dse.results.front import hypervolume, maximised, non_dominated

Phase = Literal["pretraining", "reference", "baselines", "search", "repeats", "finalists"]
_ACCURACY = measure_of("accuracy")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A snapshot of a run.

    Attributes:
        phase: the current phase.
        done: evaluations of this phase that are done; in `search`, candidates trained or failed.
        total: evaluations of this phase.
        states: number of the study's trials by state.
        front_size: number of non-dominated trained candidates that fit a budget.
        best: best accuracy of a trained candidate, or of a baseline entered as a trial, by budget
            in bytes; budgets that nothing fits yet are left out.
        hypervolume: hypervolume of that front, as a share of the box between the reference point
            (chance accuracy, the unpruned network's costs) and the ideal (accuracy 1, no cost).
        elapsed_seconds: time since this process began.
        remaining_seconds: estimate for the whole run; None before anything was trained.
        measure: how accuracies are written in the metric's own unit.
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
    measure: Measure = _ACCURACY


class Observer(Protocol):
    """Interface for callbacks during a run; the command line draws its progress with one."""

    def on_phase(self, name: Phase, total: int) -> None:
        """Called when a phase begins, with the number of its evaluations."""

    def on_trial(self, record: TrialRecord, progress: Progress) -> None:
        """Called when a trial has ended, whether it was trained or stopped by the gate."""

    def on_evaluation(self, label: str, accuracy: float, progress: Progress) -> None:
        """Called when a baseline, or one seed of a finalist, was scored."""

    def on_progress(self, share: float) -> None:
        """Called with the share of the current training that is done, from 0 to 1."""

    def on_message(self, text: str) -> None:
        """Called with one line of text for the user."""


class Silent:
    """An observer that does nothing."""

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
    """Counts and times what a run does, and measures its front.

    Attributes:
        objectives: names of the study's objectives.
        reference: reference point of the hypervolume, by objective.
        full_to_short: assumed cost of an evaluation at `full` relative to one at `short`, used
            until one at `full` was timed.
        trials: candidates to train in the search.
        full_evaluations: evaluations at `full` that follow the search.
        started: when the process began, in seconds on the clock.
        budgets: budgets in bytes.
        measure: how scores are written in the metric's own unit.
        clock: monotonic clock in seconds.
    """

    objectives: Sequence[str]
    reference: Mapping[str, float]
    full_to_short: float
    trials: int
    full_evaluations: int
    started: float
    budgets: Sequence[int]
    measure: Measure = _ACCURACY
    clock: Callable[[], float] = time.monotonic
    phase: Phase = "baselines"
    done: int = 0
    total: int = 0
    deadline: float | None = None
    states: Counter[str] = field(default_factory=Counter)
    seeded: int = 0
    failed: int = 0
    counted: set[int] = field(default_factory=set)
    _baselines: list[list[float]] = field(default_factory=list)
    _points: list[list[float]] = field(default_factory=list)
    _best: dict[int, float] = field(default_factory=dict)
    _seconds: dict[Fidelity, list[float]] = field(default_factory=dict)

    def begin(self, phase: Phase, *, total: int, done: int = 0) -> None:
        """Start a phase."""
        self.phase, self.total, self.done = phase, total, done

    def count(self, record: TrialRecord) -> None:
        """Count a trial that has ended once, and add it to the front if it was trained."""
        if record.number in self.counted:
            return
        self.counted.add(record.number)
        self.states[record.state] += 1
        if record.accuracy is not None:
            for budget in self.budgets:
                if record.peak_bytes <= budget:
                    best = self._best.get(budget, record.accuracy)
                    self._best[budget] = max(record.accuracy, best)
        if record.baseline is not None:
            self.seeded += 1
        elif record.state == "complete":
            if record.peak_bytes <= max(self.budgets):  # an inactive gate lets larger ones through
                self.add_point(record.values)
            self.add_time("short", record.wall_seconds)
            self.done += self.phase == "search"
        elif record.state == "stopped":
            self.done += self.phase == "search"
        elif record.state == "failed" and record.failure is not None:  # it won't be retried
            self.failed += 1
            self.done += self.phase == "search"

    @property
    def trained(self) -> int:
        """Candidates that the search trained, fully or up to their rungs, without baselines."""
        return self.states["complete"] + self.states["stopped"] - self.seeded

    def add_point(self, values: Mapping[str, float], *, baseline: bool = False) -> None:
        """Add a trained candidate or a baseline that fits a budget to the front's points."""
        points = self._baselines if baseline else self._points
        points.append([values[objective] for objective in self.objectives])

    def risen(self, window: int) -> float | None:
        """Return how much the hypervolume rose over the last trained candidates.

        Args:
            window: number of candidates to look back.

        Returns:
            A share of the reference box; None if fewer candidates were trained.
        """
        if len(self._points) < window:
            return None
        before = self._hypervolume([*self._baselines, *self._points[:-window]])
        return self._hypervolume([*self._baselines, *self._points]) - before

    def add_time(self, fidelity: Fidelity, wall_seconds: float) -> None:
        """Record how long an evaluation took."""
        self._seconds.setdefault(fidelity, []).append(wall_seconds)

    @property
    def now(self) -> Progress:
        """The current progress."""
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
            measure=self.measure,
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
        if self.deadline is not None and self.phase != "repeats":
            search = min(search, max(0.0, self.deadline - self.clock()))
        return search + self.full_evaluations * full_seconds
