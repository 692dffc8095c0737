"""The end of a run: finalists, strongest baselines and unpruned network are trained in full."""

import math
import statistics
from collections.abc import Sequence
from functools import partial

from dse.candidate import Candidate
from dse.finetune.evaluation import Evaluation
from dse.results.candidate_records import FinalRecord
from dse.results.front import maximised, non_dominated
from dse.search.entrants import Entrant, best_within
from dse.search.handing_out import hand_out
from dse.search.seeded import Seeded
from dse.search.session import Session

FINAL = "final:"


def choose_finalists(
    entrants: Sequence[Entrant],
    *,
    objectives: Sequence[str],
    budgets: Sequence[int],
    count: int,
) -> list[Entrant]:
    """Choose the best within each budget, then members of the front, spread over memory.

    The most accurate within each budget (see `best_within`) comes first, largest budget first. Then
    comes the front's smallest member, then repeatedly the member whose peak is farthest, as a
    ratio, from those already chosen.

    Args:
        entrants: candidates scored at `short`.
        objectives: names of the objectives.
        budgets: budgets in bytes.
        count: maximum number of finalists.

    Returns:
        At most `count` entrants, in order of their peak.
    """
    rows = [entrant.objectives(objectives) for entrant in entrants]
    mask = non_dominated(rows, maximise=maximised(objectives))
    front = [entrant for entrant, member in zip(entrants, mask, strict=True) if member]
    chosen: list[Entrant] = []

    def take(entrant: Entrant | None) -> None:
        if entrant is not None and entrant not in chosen and len(chosen) < count:
            chosen.append(entrant)

    for budget in sorted(budgets, reverse=True):
        take(best_within(entrants, budget))
    take(min(front, key=lambda one: one.peak_bytes, default=None))
    while len(chosen) < count and (left := [one for one in front if one not in chosen]):
        take(max(left, key=lambda one: _distance(one, chosen)))
    return sorted(chosen, key=lambda one: one.peak_bytes)


def strongest_rivals(rivals: Sequence[Entrant], *, budgets: Sequence[int]) -> list[Entrant]:
    """Return the most accurate baseline within each budget, each once, by peak."""
    best = {budget: best_within(rivals, budget) for budget in budgets}
    distinct = {one.candidate.digest: one for one in best.values() if one is not None}
    return sorted(distinct.values(), key=lambda one: one.peak_bytes)


def score_finals(session: Session, chosen: Sequence[Entrant]) -> None:
    """Fine-tune the unpruned network and the chosen entrants in full, over all seeds.

    An entrant that can't be trained is left out, and the reason is stored.

    Raises:
        TrainingError: if the unpruned network can't be trained.
    """
    candidate = Candidate(channels={})
    values = {"peak_bytes": float(session.costs.peak_bytes(candidate))}
    unpruned = Entrant("unpruned", None, candidate, values, ())
    seeds = session.study.proxy.full_seeds
    session.meter.begin("finalists", total=seeds * (1 + len(chosen)))
    session.observer.on_phase("finalists", session.meter.total)
    finals = [
        Seeded(
            session,
            one,
            fidelity="full",
            what="finalist",
            seeds=range(seeds),
            store=partial(_store, session, one),
            required=one is unpruned,
        )
        for one in (unpruned, *chosen)
    ]
    hand_out((job for one in finals for job in one.jobs()), session.colleagues)


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
