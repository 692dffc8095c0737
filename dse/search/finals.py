"""The end of a run: the finalists and the unpruned network are fine-tuned in full."""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from dse.candidate import Candidate
from dse.errors import TrainingError
from dse.finetune.evaluation import Evaluation
from dse.results.front import maximised, non_dominated
from dse.results.records import BaselineRecord, FinalRecord, TrialRecord
from dse.search.handing_out import Job, hand_out
from dse.search.left_out import forget_failure, note_failure
from dse.search.session import Session

FINAL = "final:"


@dataclass(frozen=True)
class Entrant:
    """A candidate that was scored at `short` and may become a finalist.

    Attributes:
        label: such as `trial 12` or `uniform 0.50`.
        trial: trial number; None for a baseline.
        candidate: the network and recipe.
        values: objective values by name.
    """

    label: str
    trial: int | None
    candidate: Candidate
    values: dict[str, float]

    @property
    def peak_bytes(self) -> int:
        """Predicted peak of one training step in bytes."""
        return int(self.values["peak_bytes"])


def entrants(
    session: Session, trials: Iterable[TrialRecord], baselines: Iterable[BaselineRecord]
) -> list[Entrant]:
    """Return candidates scored at `short` that fit a budget, each once, trials first."""
    found: dict[str, Entrant] = {}
    for trial in trials:
        fits = session.gate.fits(trial.peak_bytes)
        if trial.state == "complete" and fits and trial.baseline is None:
            label = f"trial {trial.number}"
            entrant = Entrant(label, trial.number, trial.candidate, dict(trial.values))
            found.setdefault(trial.candidate.digest, entrant)
    for baseline in baselines:
        fits = session.gate.fits(baseline.peak_bytes)
        rival = session.space.recipe_number(baseline.candidate) is not None
        if baseline.kind != "unpruned" and fits and rival:
            entrant = Entrant(baseline.label, None, baseline.candidate, dict(baseline.values))
            found.setdefault(baseline.candidate.digest, entrant)
    return list(found.values())


def choose_finalists(
    entrants: Sequence[Entrant],
    *,
    objectives: Sequence[str],
    budgets: Sequence[int],
    count: int,
) -> list[Entrant]:
    """Choose members of the front, spread over memory.

    The most accurate member within each budget comes first (largest budget first), then the
    smallest member, then repeatedly the member whose peak is farthest, as a ratio, from those
    already chosen.

    Args:
        entrants: candidates scored at the same fidelity.
        objectives: names of the objectives.
        budgets: budgets in bytes.
        count: maximum number of finalists.

    Returns:
        At most `count` entrants, in order of their peak.
    """
    rows = [[entrant.values[name] for name in objectives] for entrant in entrants]
    mask = non_dominated(rows, maximise=maximised(objectives))
    left = [entrant for entrant, member in zip(entrants, mask, strict=True) if member]
    chosen: list[Entrant] = []

    def take(entrant: Entrant) -> None:
        if len(chosen) < count and entrant in left:
            chosen.append(entrant)
            left.remove(entrant)

    if not left:
        return []
    front = tuple(left)
    for budget in sorted(budgets, reverse=True):
        within = [entrant for entrant in front if entrant.peak_bytes <= budget]
        if within:
            take(max(within, key=lambda one: (one.values["accuracy"], -one.peak_bytes)))
    take(min(front, key=lambda one: one.peak_bytes))
    while left and len(chosen) < count:
        take(max(left, key=lambda one: _distance(one, chosen)))
    return sorted(chosen, key=lambda one: one.peak_bytes)


def score_finals(session: Session, chosen: Sequence[Entrant]) -> None:
    """Fine-tune the unpruned network and the finalists in full, over all seeds.

    A finalist that can't be trained is left out, and the reason is stored.

    Raises:
        TrainingError: if the unpruned network can't be trained.
    """
    unpruned = Candidate(channels={})
    values = {"peak_bytes": float(session.costs.peak_bytes(unpruned))}
    seeds = session.study.proxy.full_seeds
    session.meter.begin("finalists", total=seeds * (1 + len(chosen)))
    session.observer.on_phase("finalists", session.meter.total)
    reference = _Final(session, Entrant("unpruned", None, unpruned, values))
    finals = [reference, *(_Final(session, entrant) for entrant in chosen)]
    hand_out((job for one in finals for job in one.jobs()), session.colleagues)


class _Final:
    """The full trainings of one entrant."""

    def __init__(self, session: Session, entrant: Entrant) -> None:
        self._session = session
        self._entrant = entrant
        self._found: dict[int, Evaluation] = {}
        self._failed = False

    def jobs(self) -> Iterator[Job]:
        """Yield one job for each seed. The last one to end stores the record."""
        for seed_index in range(self._session.study.proxy.full_seeds):
            yield Job(
                key=f"final {self._entrant.candidate.digest} {seed_index}",
                is_done=partial(self._is_done, seed_index),
                run=partial(self._run, seed_index),
            )

    def _is_done(self, seed_index: int) -> bool:
        trainer, candidate = self._session.trainer, self._entrant.candidate
        return self._failed or trainer.has(candidate, fidelity="full", seed_index=seed_index)

    def _run(self, seed_index: int) -> None:
        if self._failed:
            return
        entrant, meter = self._entrant, self._session.meter
        try:
            evaluation = self._session.trainer.score(
                entrant.candidate, fidelity="full", seed_index=seed_index, read_validation=True
            )
        except TrainingError as error:
            if entrant.label == "unpruned":
                raise TrainingError(f"unpruned at fidelity full: {error}") from error
            self._failed = True
            note_failure(self._session, "finalist", entrant.label, entrant.candidate, error)
            return
        self._found[seed_index] = evaluation
        meter.done += 1
        meter.add_time("full", evaluation.wall_seconds)
        self._session.observer.on_evaluation(entrant.label, evaluation.accuracy, meter.now)
        if len(self._found) == self._session.study.proxy.full_seeds:
            forget_failure(self._session, "finalist", entrant.label)
            _store(self._session, entrant, [self._found[one] for one in sorted(self._found)])


def _store(session: Session, entrant: Entrant, evaluations: Sequence[Evaluation]) -> None:
    record = FinalRecord(
        label=entrant.label,
        trial=entrant.trial,
        candidate=entrant.candidate,
        peak_bytes=entrant.peak_bytes,
        accuracies=tuple(one.accuracy for one in evaluations),
        validation_accuracies=tuple(
            one.validation_accuracy for one in evaluations if one.validation_accuracy is not None
        ),
        step_seconds=statistics.median(one.step_seconds for one in evaluations),
        seeds=tuple(one.seed for one in evaluations),
        validation_correct=_correct(evaluations),
    )
    session.archive.set_user_attr(FINAL + entrant.candidate.digest, record.to_json())


def _correct(evaluations: Sequence[Evaluation]) -> tuple[tuple[int, ...], ...]:
    """Return correct predictions per seed and class; empty if an older release stored a seed."""
    found = [one.validation_correct for one in evaluations]
    return tuple(one for one in found if one is not None) if all(found) else ()


def _distance(entrant: Entrant, chosen: Sequence[Entrant]) -> float:
    """Return the distance to the nearest chosen peak, as the logarithm of the ratio of peaks."""
    return min(
        (abs(math.log(entrant.peak_bytes / other.peak_bytes)) for other in chosen),
        default=math.inf,
    )
