"""The results of a run as plain data: all that `report`, `pick` and `export` read of the search.

Nothing here reads a storage, a network or a file. `load_run` builds these records from a run
folder. Accuracies are scores by the study's metric (see `dse.measures`): 1 is ideal, larger is
better. Sizes are in bytes and durations in seconds.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from dse.candidate import Candidate
from dse.config import Study
from dse.data.summary import DataSummary, counted
from dse.errors import RunError
from dse.measures import Measure, measure_of
from dse.names import SearchConvention
from dse.results.balance import ClassImages
from dse.results.candidate_records import (
    BaselineRecord,
    FailureRecord,
    FinalRecord,
    RepeatRecord,
    TrialRecord,
    TrialState,
)
from dse.results.reference import Tuning
from dse.results.sessions import SessionRecord
from dse.results.varied import Varied, contains

STATES: tuple[TrialState, ...] = get_args(TrialState)


@dataclass(frozen=True, kw_only=True)
class RunRecords:
    """All results of a run so far.

    Attributes:
        folder: The run folder.
        study: The resolved study, with the recipe that was found for the unpruned network.
        groups: Name and full number of channels of each channel group, in execution order.
        reference: For each objective of the study, the value that a point must beat to count in the
            hypervolume: chance for accuracy, the unpruned network's value for minimised objectives.
        trials: Trials in order of their numbers.
        baselines: Baselines, with the unpruned network first, then by method. Empty until scored.
        repeats: What was scored at `short` with several seeds, by peak memory.
        warm_starts: By name, how many candidates of each earlier run the sampler learned from.
        finals: Finalists by peak memory. Empty until the first has been trained in full.
        classes: Number of outputs of the network.
        unpruned_peak_bytes: Predicted peak memory of the unpruned network.
        smallest_peak_bytes: Predicted peak memory with every group pruned as far as the space
            allows.
        convention: How memory is counted.
        worthless: Value of a metric that is an error, which is worth nothing. None for others.
        joint: For each recipe setting that varies, its possible values.
        lost_trials: Number of trials that failed before their candidate was known.
        data: Summary of the data. None for runs that did not store it.
        trusted: Whether code that the run names may be executed, because the run was made on this
            machine or the user trusts it.
        failures: Baselines and finalists whose training failed. Failed trials are in `trials`.
        tuning: How the recipe of `study` was found. None if it is the study file's own.
        sessions: When and on which machine `dse run` worked on it, in order. Empty for runs that
            did not store it.
        versions: Versions of Python and the packages that the last session used.
        fingerprint: Identifies the network's shape and the data (see `dse.search.fingerprint`).
            Empty in runs of older releases.
    """

    folder: Path
    study: Study
    groups: tuple[tuple[str, int], ...]
    reference: Mapping[str, float]
    trials: tuple[TrialRecord, ...]
    baselines: tuple[BaselineRecord, ...]
    finals: tuple[FinalRecord, ...]
    classes: int
    unpruned_peak_bytes: int
    smallest_peak_bytes: int
    repeats: tuple[RepeatRecord, ...] = ()
    warm_starts: Mapping[str, int] = field(default_factory=dict)
    convention: SearchConvention = "tensors"
    worthless: float | None = None
    joint: Mapping[str, Varied] = field(default_factory=dict)
    lost_trials: int = 0
    data: DataSummary | None = None
    trusted: bool = False
    failures: tuple[FailureRecord, ...] = ()
    tuning: Tuning | None = None
    sessions: tuple[SessionRecord, ...] = field(default=(), compare=False)
    versions: Mapping[str, str] = field(default_factory=dict, compare=False)
    fingerprint: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        """Reject records without a finite value for each of the study's objectives."""
        scored = [(f"trial {trial.number}", trial.values) for trial in self.complete]
        scored += [(f"baseline {baseline.label}", baseline.values) for baseline in self.baselines]
        for place, values in (*scored, ("the reference", self.reference)):
            for objective in self.study.search.objectives:
                if not math.isfinite(values.get(objective, math.nan)):
                    raise RunError(
                        f"{self.folder}: {place} has no finite value for objective {objective!r}; "
                        "the storage is damaged or of another study"
                    )

    @property
    def metric(self) -> str:
        """The metric of all accuracies."""
        return self.study.metric

    @property
    def measure(self) -> Measure:
        """How accuracies are written in the metric's own unit."""
        ends = self.study.task.metric_range
        if ends is None and self.worthless is not None:
            ends = (self.worthless, 0.0)
        return measure_of(self.metric, ends)

    @property
    def outputs_text(self) -> str:
        """Number of outputs with what they stand for, such as "10 classes"."""
        return counted(self.classes, "output" if self.data is None else self.data.noun)

    @property
    def class_images(self) -> ClassImages | None:
        """Labels and images of each class in each part. None in runs that did not store them."""
        return ClassImages.of_summary(self.data)

    @property
    def rivals(self) -> tuple[BaselineRecord, ...]:
        """Baselines that can be picked for a device (see `is_rival`)."""
        return tuple(one for one in self.baselines if is_rival(self.joint, one.candidate))

    @property
    def pickable_finals(self) -> tuple[FinalRecord, ...]:
        """Finalists that can be picked for a device: the search's own, and rivals."""
        return tuple(
            one
            for one in self.finals
            if one.trial is not None or is_rival(self.joint, one.candidate)
        )

    @property
    def complete(self) -> tuple[TrialRecord, ...]:
        """Trials that were trained and scored."""
        return tuple(trial for trial in self.trials if trial.state == "complete")

    @property
    def trained(self) -> tuple[TrialRecord, ...]:
        """Trials that were trained, including those stopped at their rung."""
        return tuple(trial for trial in self.trials if trial.state in ("complete", "stopped"))

    @property
    def trials_by_state(self) -> dict[TrialState, int]:
        """Number of trials in each state, including zeros."""
        counts = Counter(trial.state for trial in self.trials)
        return {state: counts[state] for state in STATES}

    @property
    def unpruned(self) -> BaselineRecord | None:
        """The unpruned network as a baseline. None until it is scored."""
        return next((b for b in self.baselines if b.kind == "unpruned"), None)

    def trial(self, number: int) -> TrialRecord:
        """Return the trial of a number.

        Raises:
            RunError: If the run has no such trial.
        """
        found = next((one for one in self.trials if one.number == number), None)
        if found is None:
            numbers = [one.number for one in self.trials]
            known = f"from {min(numbers)} to {max(numbers)}" if numbers else "none yet"
            raise RunError(f"{self.folder} has no trial {number}; its trials are {known}")
        return found

    def final_of(self, candidate: Candidate) -> FinalRecord | None:
        """Return the record of a candidate at fidelity `full`, or None."""
        digest = candidate.digest
        return next((final for final in self.finals if final.candidate.digest == digest), None)


def is_rival(joint: Mapping[str, Varied], candidate: Candidate) -> bool:
    """Whether a baseline competes with the search's candidates: its recipe is in the joint space.

    Baselines with other recipes are only shown for comparison. A user who fixed the batch and image
    size does not want others picked.

    Args:
        joint: For each recipe setting that varies, its possible values.
        candidate: Candidate of the baseline.
    """
    own = candidate.recipe.model_dump(exclude_none=True, exclude={"version", "channels"})
    if "batch_size" in own:
        own.pop("accumulate", None)  # the joint space derives it from the batch size
    return all(contains(joint.get(name, ()), value) for name, value in own.items())
