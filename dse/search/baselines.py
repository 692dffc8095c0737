"""Baselines, which need no search. A front that doesn't beat them shows nothing."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from dse.candidate import Candidate
from dse.errors import ConfigError, NetworkError, TrainingError
from dse.methods.alternatives import Subject, alternatives_in_run
from dse.results.candidate_records import BaselineKind, BaselineRecord
from dse.results.trials import BASELINE
from dse.sampling.search_space import SearchSpace
from dse.search.handing_out import Job, hand_out
from dse.search.left_out import forget_failure, note_failure
from dse.search.session import Session
from dse.search.trainer import rung_of


@dataclass(frozen=True)
class Baseline:
    """A baseline that has not been scored yet.

    Attributes:
        label: unique name, such as `uniform 0.50`.
        kind: the method that made it.
        ratio: the ratio of all groups, or else the share of all channels that is removed, from 0
            to 1; 0 for recipes that don't prune.
        candidate: the network and recipe to evaluate.
    """

    label: str
    kind: BaselineKind
    ratio: float
    candidate: Candidate


def baselines(
    subject: Subject, *, on_message: Callable[[str], None] = lambda _text: None
) -> Iterator[Baseline]:
    """Yield a study's baselines: the unpruned network, then the candidates of each method.

    Args:
        subject: the study with its network, search space and memory model.
        on_message: called with one line for each method that the network doesn't support.
    """
    yield Baseline("unpruned", "unpruned", 0.0, Candidate(channels={}))
    for method in subject.study.baselines.methods:
        try:
            offered = alternatives_in_run(method, subject)
        except (ConfigError, NetworkError) as error:
            on_message(f"baseline {method} is left out: {error}")
            continue
        for one in offered:
            removed = _removed(subject.space, one.candidate)
            ratio = removed if one.ratio is None else one.ratio
            yield Baseline(one.label, method, ratio, one.candidate)


def _removed(space: SearchSpace, candidate: Candidate) -> float:
    """Return the share of all channels that a candidate removes, from 0 to 1."""
    full = sum(choice.channels for choice in space.choices)
    return 1 - sum(candidate.kept(space.choices)) / full


def score_baselines(session: Session) -> tuple[BaselineRecord, ...]:
    """Score every baseline at fidelity `short`, whether it fits a budget or not, and store it.

    A baseline that can't be trained is left out, and the reason is stored.

    Raises:
        TrainingError: if the unpruned network can't be trained, since it is the reference.
    """
    subject = Subject(
        study=session.study,
        network=session.network,
        space=session.space,
        model=session.costs.training,
        beyond_tensors_bytes=session.costs.beyond_tensors_bytes,
    )
    found: dict[Candidate, Baseline] = {}
    for one in baselines(subject, on_message=session.observer.on_message):
        found.setdefault(one.candidate, one)  # two methods may yield the same candidate
    if not all(map(session.trainer.knows, found)):
        session.trainer.prepare()  # pretraining is a phase of its own and comes before this one
    session.meter.begin("baselines", total=len(found))
    session.observer.on_phase("baselines", len(found))
    scored: dict[str, BaselineRecord | None] = {}
    distinct = _distinct(session, found.values())
    hand_out((_job(session, one, scored) for one in distinct), session.colleagues)
    records = (scored[one.label] for one in distinct)
    return tuple(record for record in records if record is not None)


def _job(session: Session, baseline: Baseline, scored: dict[str, BaselineRecord | None]) -> Job:
    def run() -> None:
        scored[baseline.label] = _try(session, baseline)

    return Job(
        key=f"baseline {baseline.label}",
        is_done=lambda: session.trainer.knows(baseline.candidate),
        run=run,
    )


def _try(session: Session, baseline: Baseline) -> BaselineRecord | None:
    try:
        record = _score(session, baseline)
    except TrainingError as error:
        if baseline.kind == "unpruned":
            raise TrainingError(f"baseline {baseline.label}: {error}") from error
        note_failure(session, "baseline", baseline.label, baseline.candidate, error)
        session.meter.done += 1
        return None
    forget_failure(session, "baseline", baseline.label)
    return record


def _distinct(session: Session, found: Collection[Baseline]) -> list[Baseline]:
    """Append exact peak bytes to labels that are equal, as those of nearby budgets can be."""
    counts = Counter(one.label for one in found)
    return [
        one
        if counts[one.label] == 1
        else replace(one, label=f"{one.label}, {session.costs.peak_bytes(one.candidate)} bytes")
        for one in found
    ]


def _score(session: Session, baseline: Baseline) -> BaselineRecord:
    # A baseline always trains past its rung; its rung accuracy helps to judge other candidates.
    evaluation = session.trainer.score(
        baseline.candidate,
        fidelity="short",
        rung=rung_of(session.study, lambda _accuracy: True),
        whole=True,  # the search may have stopped the same candidate at its rung
    )
    costs = session.costs.of(baseline.candidate)
    record = BaselineRecord(
        label=baseline.label,
        kind=baseline.kind,
        ratio=baseline.ratio,
        candidate=baseline.candidate,
        peak_bytes=costs["peak_bytes"],
        accuracy=evaluation.accuracy,
        values={"accuracy": evaluation.accuracy, **costs},
        correct=evaluation.correct,
    )
    session.archive.set_user_attr(BASELINE + record.label, record.to_json())
    session.meter.done += 1
    session.meter.add_time("short", evaluation.wall_seconds)
    fits = session.gate.fits(record.peak_bytes)
    if fits and session.space.recipe_number(record.candidate) is not None:
        session.meter.add_point(record.values, baseline=True)
    session.observer.on_evaluation(record.label, record.accuracy, session.meter.now)
    return record
