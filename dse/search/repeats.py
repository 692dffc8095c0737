"""Before finalists are chosen, what may be best within a budget is scored with more seeds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby

from dse.finetune.evaluation import Evaluation
from dse.results.candidate_records import RepeatRecord
from dse.search.entrants import Entrant
from dse.search.handing_out import hand_out
from dse.search.seeded import Seeded
from dse.search.session import Session

REPEAT = "repeat:"


def repeat(session: Session, entrants: Sequence[Entrant]) -> list[Entrant]:
    """Score the most accurate candidates and baselines within each budget again at `short`.

    Within each budget, `search.repeats` candidates of the search and as many baselines get a second
    seed, and the better half of these a third (successive halving over seeds). One that can't be
    trained with another seed is left out.

    Args:
        session: the run's session.
        entrants: candidates and baselines scored at `short` with one seed, each once.

    Returns:
        The entrants, with mean accuracies over their seeds.
    """
    budgets, count = session.study.search.budget_bytes, session.study.search.repeats
    known = list(entrants)
    for seed_index, share in ((1, count), (2, math.ceil(count / 2))):
        chosen = close_to_best(known, budgets=budgets, count=share, seeds=seed_index)
        known = _scored(session, known, chosen, seed_index=seed_index)
    return known


def close_to_best(
    entrants: Iterable[Entrant], *, budgets: Iterable[int], count: int, seeds: int
) -> list[Entrant]:
    """Return the most accurate candidates and the most accurate baselines within each budget.

    Args:
        entrants: candidates and baselines, each once.
        budgets: budgets in bytes.
        count: number of each kind within each budget.
        seeds: number of seeds that an entrant must have been scored with.

    Returns:
        Distinct entrants, candidates first, each kind by descending accuracy.
    """
    ready = [one for one in entrants if one.seeds == seeds]
    ready.sort(key=lambda one: (one.trial is None, -one.accuracy, one.peak_bytes))
    taken: set[str] = set()
    for _, kind in groupby(ready, key=lambda one: one.trial is None):
        ranked = list(kind)
        for budget in budgets:
            within = [one for one in ranked if one.peak_bytes <= budget]
            taken.update(one.candidate.digest for one in within[:count])
    return [one for one in ready if one.candidate.digest in taken]


def _scored(
    session: Session, known: Sequence[Entrant], chosen: Sequence[Entrant], *, seed_index: int
) -> list[Entrant]:
    """Score some of the entrants with one more seed."""
    if not chosen:
        return list(known)
    session.meter.begin("repeats", total=len(chosen))
    session.observer.on_phase("repeats", len(chosen))
    found: dict[str, RepeatRecord] = {}
    several = [
        Seeded(
            session,
            one,
            fidelity="short",
            what="repeat of",
            seeds=(seed_index,),
            store=partial(_store, session, one, found),
        )
        for one in chosen
    ]
    hand_out((job for one in several for job in one.jobs()), session.colleagues)
    lost = {one.candidate.digest for one in chosen} - found.keys()
    return [
        replace(one, accuracies=found[one.candidate.digest].accuracies)
        if one.candidate.digest in found
        else one
        for one in known
        if one.candidate.digest not in lost
    ]


def _store(
    session: Session,
    entrant: Entrant,
    found: dict[str, RepeatRecord],
    evaluations: Sequence[Evaluation],
) -> None:
    digest = entrant.candidate.digest
    record = RepeatRecord(
        label=entrant.label,
        trial=entrant.trial,
        candidate=entrant.candidate,
        peak_bytes=entrant.peak_bytes,
        accuracies=(*entrant.accuracies, *(one.accuracy for one in evaluations)),
    )
    found[digest] = record
    session.archive.set_user_attr(REPEAT + digest, record.to_json())
