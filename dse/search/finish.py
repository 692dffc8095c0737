"""What follows the last trial: more seeds for what may be best, then training in full."""

from dse.results.candidate_records import BaselineRecord
from dse.results.trials import trial_record
from dse.search.entrants import entrants, rivals
from dse.search.finals import choose_finalists, score_finals, strongest_rivals
from dse.search.repeats import repeat
from dse.search.session import Session


def finish(session: Session, baselines: tuple[BaselineRecord, ...]) -> None:
    """Choose what is fine-tuned in full, and fine-tune it.

    Raises:
        TrainingError: if the unpruned network can't be trained.
    """
    search = session.study.search
    records = [
        trial_record(trial, objectives=search.objectives)
        for trial in session.archive.get_trials(deepcopy=False)
    ]
    known = entrants(session, [one for one in records if one is not None], baselines)
    own = {one.candidate.digest for one in known}
    others = [one for one in rivals(session, baselines) if one.candidate.digest not in own]
    scored = repeat(session, [*known, *others])
    chosen = choose_finalists(
        [one for one in scored if one.candidate.digest in own],
        objectives=search.objectives,
        budgets=search.budget_bytes,
        count=search.finalists,
    )
    if search.full_baselines:
        strongest = strongest_rivals(
            [one for one in scored if one.trial is None], budgets=search.budget_bytes
        )
        chosen += [one for one in strongest if one not in chosen]
    score_finals(session, chosen)
