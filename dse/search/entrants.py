"""The candidates and baselines that a run may fine-tune in full at its end."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from dse.candidate import Candidate
from dse.results.candidate_records import BaselineRecord, TrialRecord
from dse.search.session import Session


@dataclass(frozen=True)
class Entrant:
    """A candidate that was scored at `short` and may be fine-tuned in full.

    Attributes:
        label: such as `trial 12` or `uniform 0.50`.
        trial: trial number; None for a baseline.
        candidate: the network and recipe.
        values: objective values by name, of the first seed.
        accuracies: accuracy at `short` on the selection part for each seed, at least one.
    """

    label: str
    trial: int | None
    candidate: Candidate
    values: dict[str, float]
    accuracies: tuple[float, ...]

    @property
    def peak_bytes(self) -> int:
        """Predicted peak of one training step in bytes."""
        return int(self.values["peak_bytes"])

    @property
    def seeds(self) -> int:
        """Number of seeds that it was scored with."""
        return len(self.accuracies)

    @property
    def accuracy(self) -> float:
        """Mean accuracy over its seeds."""
        return fmean(self.accuracies)

    def objectives(self, names: Sequence[str]) -> list[float]:
        """Return its values of some objectives, with the mean accuracy."""
        return [self.accuracy if name == "accuracy" else self.values[name] for name in names]

    @classmethod
    def of(cls, record: TrialRecord | BaselineRecord) -> "Entrant":
        """Return a scored trial or baseline as an entrant."""
        trial = record.number if isinstance(record, TrialRecord) else None
        label = record.label if isinstance(record, BaselineRecord) else f"trial {trial}"
        values = dict(record.values)
        return cls(label, trial, record.candidate, values, (values["accuracy"],))


def entrants(
    session: Session, trials: Iterable[TrialRecord], baselines: Iterable[BaselineRecord]
) -> list[Entrant]:
    """Return candidates of the search space that fit a budget, each once, trials first."""
    found: dict[str, Entrant] = {}
    for trial in trials:
        fits = session.gate.fits(trial.peak_bytes)
        if trial.state == "complete" and fits and trial.baseline is None:
            found.setdefault(trial.candidate.digest, Entrant.of(trial))
    for one in rivals(session, baselines):
        if session.space.recipe_number(one.candidate) is not None:
            found.setdefault(one.candidate.digest, one)
    return list(found.values())


def rivals(session: Session, baselines: Iterable[BaselineRecord]) -> list[Entrant]:
    """Return the baselines that fit a budget, also those that the search space doesn't hold."""
    return [
        Entrant.of(one)
        for one in baselines
        if one.kind != "unpruned" and session.gate.fits(one.peak_bytes)
    ]


def best_within(entrants: Iterable[Entrant], budget: int) -> Entrant | None:
    """Return the most accurate entrant within a budget, of those with the most seeds.

    A single training that came out well says less than a mean, so those with fewer seeds, which
    were behind after the same number, don't count.

    Args:
        entrants: scored candidates.
        budget: largest peak in bytes.
    """
    within = [one for one in entrants if one.peak_bytes <= budget]
    return max(within, key=lambda one: (one.seeds, one.accuracy, -one.peak_bytes), default=None)
