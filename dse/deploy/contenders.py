"""The candidates to choose from for a device, with comparable figures."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dse.candidate import Candidate
from dse.errors import RunError
from dse.results.balance import PartName
from dse.results.records import RunRecords

_ROUNDING = 1e-9  # points; a loss of exactly the limit is allowed despite rounding


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A candidate with its figures at one fidelity.

    Attributes:
        label: such as `trial 12` or `unpruned`.
        trial: trial number; None for a baseline.
        candidate: the candidate.
        peak_bytes: predicted peak of one training step.
        fidelity: fidelity of the figures.
        selection_accuracy: mean over the seeds on the selection part, 0 to 1.
        validation_accuracy: the same on the validation part; None at fidelity `short`, which
            doesn't read it.
        step_seconds: median time of a training step; None if unknown.
        figures: the accuracy that is shown, one per seed.
        selection_figures: accuracy on the selection part, one per seed in the same order.
        correct: correct predictions by seed and class on the part that is shown; empty if the run
            didn't store them.
    """

    label: str
    trial: int | None
    candidate: Candidate
    peak_bytes: int
    fidelity: Literal["short", "full"]
    selection_accuracy: float
    validation_accuracy: float | None = None
    step_seconds: float | None = None
    figures: tuple[float, ...] = ()
    selection_figures: tuple[float, ...] = ()
    correct: tuple[tuple[int, ...], ...] = ()

    @property
    def accuracy(self) -> float:
        """The accuracy that is shown: on the validation part if that was read."""
        if self.validation_accuracy is None:
            return self.selection_accuracy
        return self.validation_accuracy

    @property
    def part(self) -> PartName:
        """The part of the data that the shown accuracy is from."""
        return "selection" if self.validation_accuracy is None else "validation"


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Contenders that are comparable because all were scored at the same fidelity.

    Losses are in points of accuracy (percent) relative to the unpruned network.

    Attributes:
        unpruned: the unpruned network.
        contenders: all contenders, the unpruned network included.
    """

    unpruned: Contender
    contenders: tuple[Contender, ...]

    def selection_drop(self, one: Contender) -> float:
        """Return the loss on the selection part in points."""
        return 100 * (self.unpruned.selection_accuracy - one.selection_accuracy)

    def shown_drop(self, one: Contender) -> float:
        """Return the loss of the shown accuracy in points."""
        return 100 * (self.unpruned.accuracy - one.accuracy)

    def drop(self, one: Contender) -> float:
        """Return the larger of both losses in points; a limit must allow both."""
        return max(self.selection_drop(one), self.shown_drop(one))

    def qualifies(self, one: Contender, *, max_drop: float) -> bool:
        """Return whether both losses are within a limit."""
        return is_within(self.drop(one), max_drop)


def is_within(drop: float, max_drop: float) -> bool:
    """Return whether a loss in points is at most the limit."""
    return drop <= max_drop + _ROUNDING


def pools(records: RunRecords) -> Iterator[Pool]:
    """Yield the pool at fidelity `full` if the unpruned network has one, then that at `short`.

    Raises:
        RunError: if the unpruned network hasn't been scored yet.
    """
    short = short_pool(records)
    full = _full_pool(records)
    if full is None:
        yield short
        return
    yield full
    tuned_in_full = {one.candidate.digest for one in full.contenders}
    left = tuple(one for one in short.contenders if one.candidate.digest not in tuned_in_full)
    yield Pool(unpruned=short.unpruned, contenders=left)


def short_pool(records: RunRecords) -> Pool:
    """Return all that was scored at fidelity `short`: trials, and baselines that can be picked.

    Raises:
        RunError: if the unpruned network hasn't been scored yet.
    """
    baseline = records.unpruned
    if baseline is None:
        raise RunError(
            f"{records.folder}: the unpruned network isn't scored yet, so no loss is known: "
            "continue the run with dse run"
        )
    short = [
        Contender(
            label=one.label,
            trial=None,
            candidate=one.candidate,
            peak_bytes=one.peak_bytes,
            fidelity="short",
            selection_accuracy=one.accuracy,
            figures=(one.accuracy,),
            selection_figures=(one.accuracy,),
            correct=() if one.correct is None else (one.correct,),
        )
        for one in records.rivals
    ]
    reference = next(one for one in short if one.candidate.digest == baseline.candidate.digest)
    short += [
        Contender(
            label=f"trial {trial.number}",
            trial=trial.number,
            candidate=trial.candidate,
            peak_bytes=trial.peak_bytes,
            fidelity="short",
            selection_accuracy=trial.accuracy,
            figures=(trial.accuracy,),
            selection_figures=(trial.accuracy,),
            correct=() if trial.correct is None else (trial.correct,),
        )
        for trial in records.complete
        if trial.fidelity == "short" and trial.accuracy is not None and trial.baseline is None
    ]
    return Pool(unpruned=reference, contenders=tuple(short))


def _full_pool(records: RunRecords) -> Pool | None:
    """Return what was fine-tuned in full and can be picked; None if the unpruned network wasn't."""
    baseline = records.unpruned
    whole = None if baseline is None else records.final_of(baseline.candidate)
    if whole is None:
        return None
    finals = tuple(
        Contender(
            label=final.label,
            trial=final.trial,
            candidate=final.candidate,
            peak_bytes=final.peak_bytes,
            fidelity="full",
            selection_accuracy=final.accuracy,
            validation_accuracy=final.validation_accuracy,
            step_seconds=final.step_seconds,
            figures=final.validation_accuracies,
            selection_figures=final.accuracies,
            correct=final.validation_correct,
        )
        for final in records.pickable_finals
    )
    digest = whole.candidate.digest
    return Pool(
        unpruned=next(one for one in finals if one.candidate.digest == digest), contenders=finals
    )
