"""What a run has found, as plain data: the only thing that report, pick and export read.

Nothing here touches a storage, a network or a file; `load_run` builds these records from a run
folder. Accuracies are shares from 0 to 1, by the study's metric (`search.metric`); sizes are bytes,
durations seconds.
"""

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, PlainSerializer, TypeAdapter, ValidationError

from dse.candidate import Candidate
from dse.config import Study
from dse.config.fields import SearchConvention
from dse.data.summary import DataSummary
from dse.errors import RunError
from dse.metrics import Metric
from dse.names import Fidelity
from dse.results.balance import ClassImages

TrialState = Literal["complete", "stopped", "infeasible", "duplicate", "failed", "running"]
Value = str | int | float | bool
BaselineKind = str

STATES: tuple[TrialState, ...] = (
    "complete",
    "stopped",
    "infeasible",
    "duplicate",
    "failed",
    "running",
)

# Canonical: defaults left out, as in every other file that holds a candidate.
CandidateField = Annotated[
    Candidate, PlainSerializer(lambda candidate: json.loads(candidate.canonical_json()))
]


class _Record:
    """JSON for the frozen dataclasses below: `from_json(record.to_json())` equals the record."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        dumped: dict[str, Any] = TypeAdapter(type(self)).dump_python(self, mode="json")
        return dumped

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, source: str = "record") -> Self:
        """Read what `to_json` gave.

        Args:
            data: the JSON object.
            source: where it came from, for the message.

        Raises:
            RunError: if a field is missing, unknown or of the wrong kind; names the first one.
        """
        try:
            # As JSON text, not as Python objects: strict classes take a list for a tuple, or a text
            # for a path, from JSON alone.
            record: Self = TypeAdapter(cls).validate_json(json.dumps(dict(data)))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or cls.__name__
            raise RunError(f"{source}: {place}: {first['msg']}") from error
        return record


@dataclass(frozen=True, kw_only=True)
class TrialRecord(_Record):
    """One trial of the search.

    A trial that died before its candidate was known has no record; `RunRecords.lost_trials`
    counts these.

    Attributes:
        number: Optuna's number of the trial.
        state: `complete` (trained and scored), `stopped` (given up at its rung), `infeasible` (over
            every budget, never trained), `duplicate` (evaluated before, never trained again),
            `failed` or `running`.
        params: what the sampler drew.
        candidate: what was evaluated.
        peak_bytes: predicted peak memory of one training step.
        accuracy: on the selection part, at `fidelity`; None unless complete.
        values: the objectives by name, as told to the sampler; empty unless complete.
        wall_seconds: time spent on the trial.
        seeds: the seeds it was trained with.
        fidelity: None where nothing was trained.
        duplicate_of: number of the trial that evaluated the same candidate.
        baseline: label of the baseline that was entered as this trial; None for a draw.
        failure: why a failed trial couldn't be trained, in one line; None for all others.
        correct: images of each class put right, on the selection part; None unless complete, and
            in runs of older releases.
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
        """Refuse a complete trial without an accuracy, and accuracies that are no shares."""
        place = f"trial {self.number}"
        if self.state == "complete" and self.accuracy is None:
            raise RunError(f"{place} is complete but has no accuracy; the storage is damaged")
        if self.accuracy is not None:
            _check_share(self.accuracy, f"{place}: accuracy")


@dataclass(frozen=True, kw_only=True)
class BaselineRecord(_Record):
    """A configuration that needs no search, scored as the trials are.

    Attributes:
        label: what pictures and tables print, such as `unpruned` or `uniform 0.50`.
        kind: `unpruned`, or the method that gives it; see `dse.config.BaselinesConfig`.
        ratio: the pruning ratio, 0 for the unpruned network; the share of all channels removed
            where groups differ.
        candidate: what was evaluated.
        peak_bytes: predicted peak memory of one training step.
        accuracy: on the selection part, at fidelity `short`.
        values: the study's objectives by name, as for a trial.
        correct: images of each class put right, on the selection part; None in runs of older
            releases.
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
        """Refuse an accuracy that is no share."""
        _check_share(self.accuracy, f"baseline {self.label}: accuracy")


@dataclass(frozen=True, kw_only=True)
class FinalRecord(_Record):
    """A candidate fine-tuned at fidelity `full`, once for each seed.

    Attributes:
        label: what pictures and tables print, such as `trial 12` or `unpruned`.
        trial: number of its trial; None for a baseline.
        candidate: what was evaluated.
        peak_bytes: predicted peak memory of one training step.
        accuracies: on the selection part, one for each seed.
        validation_accuracies: on the validation part, one for each seed, in the same order.
        step_seconds: median time of one training step.
        seeds: the seeds, in the same order.
        validation_correct: for each seed, the images of each class put right on the validation
            part; empty in runs of older releases.
    """

    label: str
    trial: int | None
    candidate: CandidateField
    peak_bytes: int
    accuracies: tuple[float, ...]
    validation_accuracies: tuple[float, ...]
    step_seconds: float
    seeds: tuple[int, ...] = ()
    validation_correct: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        """Refuse a final without seeds, a part with fewer of them, and what is no share."""
        if not self.accuracies or len(self.accuracies) != len(self.validation_accuracies):
            raise RunError(
                f"{self.label}: {len(self.accuracies)} selection and "
                f"{len(self.validation_accuracies)} validation accuracies; one of each per seed"
            )
        for accuracy in (*self.accuracies, *self.validation_accuracies):
            _check_share(accuracy, f"{self.label}: accuracy")

    @property
    def accuracy(self) -> float:
        """Mean over the seeds, on the selection part."""
        return statistics.fmean(self.accuracies)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over the seeds, on the selection part; None for one seed."""
        return _spread(self.accuracies)

    @property
    def validation_accuracy(self) -> float:
        """Mean over the seeds, on the validation part."""
        return statistics.fmean(self.validation_accuracies)

    @property
    def validation_spread(self) -> float | None:
        """Sample standard deviation over the seeds, on the validation part; None for one seed."""
        return _spread(self.validation_accuracies)


@dataclass(frozen=True, kw_only=True)
class FailureRecord(_Record):
    """A baseline or finalist that could not be trained.

    Attributes:
        label: of it, such as `uniform 0.50`.
        what: `baseline` or `finalist`.
        candidate: what was to be trained.
        peak_bytes: predicted peak memory of one training step.
        reason: in one line.
    """

    label: str
    what: str
    candidate: CandidateField
    peak_bytes: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunRecords:
    """Everything a run has found so far.

    Attributes:
        folder: the run folder.
        study: the resolved study.
        groups: name and full channels of each channel group, in execution order.
        reference: for each objective of the study, the value a point must beat to count in the
            hypervolume: chance for accuracy, the unpruned network's for what is made small.
        trials: in order of their numbers.
        baselines: unpruned first, then by method; empty until they are scored.
        finals: by peak memory; empty until the first is trained in full.
        classes: outputs of the network.
        unpruned_peak_bytes: predicted peak memory of the whole network.
        smallest_peak_bytes: the same with every group pruned as far as the space allows.
        convention: how memory is counted.
        joint: what of the recipe varies, and what it may be, the study's own first.
        lost_trials: trials that died before their candidate was known.
        data: what was understood of the data; None for runs that didn't note it.
        trusted: whether code that the run names may be run: this machine made it, or the user
            vouches for it.
        failures: baselines and finalists that could not be trained; failed trials stand among the
            trials.
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
    convention: SearchConvention = "tensors"
    joint: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    lost_trials: int = 0
    data: DataSummary | None = None
    trusted: bool = False
    failures: tuple[FailureRecord, ...] = ()

    def __post_init__(self) -> None:
        """Refuse records that lack one of the study's objectives: no front could be drawn."""
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
    def metric(self) -> Metric:
        """What the accuracies are."""
        return self.study.search.metric

    @property
    def class_images(self) -> ClassImages | None:
        """Labels, and the images of each in each part; None in runs that didn't note them."""
        return ClassImages.of_summary(self.data)

    @property
    def rivals(self) -> tuple[BaselineRecord, ...]:
        """The baselines that a device may be given; see `is_rival`."""
        return tuple(one for one in self.baselines if is_rival(self.joint, one.candidate))

    @property
    def complete(self) -> tuple[TrialRecord, ...]:
        """The trials that were trained and scored."""
        return tuple(trial for trial in self.trials if trial.state == "complete")

    @property
    def trials_by_state(self) -> dict[TrialState, int]:
        """How many trials are in each state, zeros included."""
        counts = Counter(trial.state for trial in self.trials)
        return {state: counts[state] for state in STATES}

    @property
    def unpruned(self) -> BaselineRecord | None:
        """The whole network as a baseline; None until it is scored."""
        return next((b for b in self.baselines if b.kind == "unpruned"), None)

    def final_of(self, candidate: Candidate) -> FinalRecord | None:
        """Return the candidate's figures at fidelity `full`, or None."""
        digest = candidate.digest
        return next((final for final in self.finals if final.candidate.digest == digest), None)


def untrusted(folder: Path, objection: str) -> RunError:
    """Return the error for a run that names code which nobody vouched for."""
    return RunError(
        f"{folder} was not made on this machine, and {objection}: give --trust if you trust "
        "whoever made it"
    )


def is_rival(joint: Mapping[str, Sequence[Value]], candidate: Candidate) -> bool:
    """Say whether a baseline competes with the search's candidates: its recipe may be drawn.

    Baselines of other recipes are shown for comparison and nothing more: whoever fixed batch and
    image size will not have others picked.

    Args:
        joint: what varies, and what it may be.
        candidate: of the baseline.
    """
    said = candidate.recipe.model_dump(exclude_none=True, exclude={"version", "channels"})
    if "batch_size" in said:
        said.pop("accumulate", None)  # follows from it
    return all(value in joint.get(name, ()) for name, value in said.items())


def _spread(values: tuple[float, ...]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _check_share(value: float, place: str) -> None:
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise RunError(f"{place} is {value}; it must lie between 0 and 1")
