"""Records of single candidates: trials, baselines, repeats, finalists, and failed trainings.

Accuracies are scores by the study's metric (see `dse.measures`): 1 is ideal, larger is better.
Sizes are in bytes and durations in seconds.
"""

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import PlainSerializer

from dse.candidate import Candidate
from dse.errors import RunError
from dse.names import Fidelity
from dse.results.json_record import JsonRecord

TrialState = Literal["complete", "stopped", "infeasible", "duplicate", "failed", "running"]
BaselineKind = str

# Canonical JSON leaves out defaults, as in every other file that holds a candidate.
CandidateField = Annotated[
    Candidate, PlainSerializer(lambda candidate: json.loads(candidate.canonical_json()))
]


@dataclass(frozen=True, kw_only=True)
class TrialRecord(JsonRecord):
    """One trial of the search.

    A trial that failed before its candidate was known has no record. `RunRecords.lost_trials`
    counts these trials.

    Attributes:
        number: Optuna's number of the trial.
        state: `complete` (trained and scored), `stopped` (stopped at its rung), `infeasible`
            (exceeds every budget, not trained), `duplicate` (evaluated before, not trained again),
            `failed` or `running`.
        params: Parameters that the sampler drew.
        candidate: The evaluated candidate.
        peak_bytes: Predicted peak memory of one training step.
        accuracy: Accuracy on the selection part at `fidelity`. None unless complete.
        values: Objectives by name, as reported to the sampler. Empty unless complete.
        wall_seconds: Wall time of the trial.
        seeds: Seeds of its trainings.
        fidelity: Fidelity of the training. None if nothing was trained.
        duplicate_of: Number of the trial that evaluated the same candidate.
        baseline: Label of the baseline that was entered as this trial. None if a sampler drew it.
        failure: One line on why training failed. None unless failed.
        correct: Correctly classified images of each class on the selection part. None unless
            complete, and in runs of older releases.
    """

    number: int
    state: TrialState
    params: Mapping[str, int | float | str | bool | None]
    candidate: CandidateField
    peak_bytes: int
    accuracy: float | None = None
    values: Mapping[str, float]
    wall_seconds: float = 0.0
    seeds: tuple[int, ...] = ()
    fidelity: Fidelity | None = None
    duplicate_of: int | None = None
    baseline: str | None = None
    failure: str | None = None
    correct: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Reject a complete trial without an accuracy, and accuracies that can't be."""
        place = f"trial {self.number}"
        if self.state == "complete" and self.accuracy is None:
            raise RunError(f"{place} is complete but has no accuracy; the storage is damaged")
        if self.accuracy is not None:
            _check_score(self.accuracy, f"{place}: accuracy")


@dataclass(frozen=True, kw_only=True)
class BaselineRecord(JsonRecord):
    """A configuration that needs no search, scored like a trial.

    Attributes:
        label: Label in figures and tables, such as `unpruned` or `uniform 0.50`.
        kind: `unpruned`, or the baseline's method (see `dse.config.BaselinesConfig`).
        ratio: Pruning ratio: 0 for the unpruned network, or the removed share of all channels if
            groups differ.
        candidate: The evaluated candidate.
        peak_bytes: Predicted peak memory of one training step.
        accuracy: Accuracy on the selection part at fidelity `short`.
        values: The study's objectives by name, as for a trial.
        correct: Correctly classified images of each class on the selection part. None in runs of
            older releases.
    """

    label: str
    kind: BaselineKind
    ratio: float
    candidate: CandidateField
    peak_bytes: int
    accuracy: float
    values: Mapping[str, float]
    correct: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Reject an accuracy that can't be."""
        _check_score(self.accuracy, f"baseline {self.label}: accuracy")


@dataclass(frozen=True, kw_only=True)
class _OfSeveralSeeds(JsonRecord):
    """A candidate or baseline that was trained once for each seed.

    Attributes:
        label: Label in figures and tables, such as `trial 12` or `unpruned`.
        trial: Number of its trial. None for a baseline.
        candidate: The evaluated candidate.
        peak_bytes: Predicted peak memory of one training step.
        accuracies: Accuracy on the selection part for each seed.
    """

    label: str
    trial: int | None
    candidate: CandidateField
    peak_bytes: int
    accuracies: tuple[float, ...]

    def __post_init__(self) -> None:
        """Reject missing seeds and invalid accuracies."""
        if not self.accuracies:
            raise RunError(f"{self.label}: no accuracies; the storage is damaged")
        for accuracy in self.accuracies:
            _check_score(accuracy, f"{self.label}: accuracy")

    @property
    def accuracy(self) -> float:
        """Mean accuracy over the seeds, on the selection part."""
        return statistics.fmean(self.accuracies)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over the seeds, on the selection part. None for one seed."""
        return _spread(self.accuracies)


@dataclass(frozen=True, kw_only=True)
class FinalRecord(_OfSeveralSeeds):
    """A candidate fine-tuned at fidelity `full`, once for each seed.

    Attributes:
        validation_accuracies: Accuracy on the validation part for each seed, in the same order.
        step_seconds: Median seconds of one training step.
        seeds: Seeds, in the same order.
        validation_correct: For each seed, the correctly classified images of each class on the
            validation part. Empty in runs of older releases.
    """

    validation_accuracies: tuple[float, ...]
    step_seconds: float
    seeds: tuple[int, ...] = ()
    validation_correct: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        """Reject missing seeds, parts with different numbers of seeds, and invalid accuracies."""
        if len(self.accuracies) != len(self.validation_accuracies):
            raise RunError(
                f"{self.label}: {len(self.accuracies)} selection and "
                f"{len(self.validation_accuracies)} validation accuracies; one of each per seed"
            )
        super().__post_init__()
        for accuracy in self.validation_accuracies:
            _check_score(accuracy, f"{self.label}: accuracy")

    @property
    def validation_accuracy(self) -> float:
        """Mean accuracy over the seeds, on the validation part."""
        return statistics.fmean(self.validation_accuracies)

    @property
    def validation_spread(self) -> float | None:
        """Sample standard deviation over the seeds, on the validation part. None for one seed."""
        return _spread(self.validation_accuracies)


@dataclass(frozen=True, kw_only=True)
class RepeatRecord(_OfSeveralSeeds):
    """A candidate or baseline scored at `short` with several seeds, before finalists are chosen.

    The first accuracy is the search's.
    """


@dataclass(frozen=True, kw_only=True)
class FailureRecord(JsonRecord):
    """A baseline or finalist that could not be trained, or not with another seed.

    Attributes:
        label: Its label, such as `uniform 0.50`.
        what: `baseline`, `finalist` or `repeat of`.
        candidate: The candidate whose training failed.
        peak_bytes: Predicted peak memory of one training step.
        reason: One line on why it failed.
    """

    label: str
    what: str
    candidate: CandidateField
    peak_bytes: int
    reason: str


def _spread(values: tuple[float, ...]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _check_score(value: float, place: str) -> None:
    if not (math.isfinite(value) and value <= 1):
        raise RunError(f"{place} is {value}; it must be a number up to 1")
