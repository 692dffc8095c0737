"""Configurations that need no search: a front that doesn't beat them has shown nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dse.candidate import Candidate
from dse.errors import TrainingError
from dse.search.records import BaselineRecord
from dse.search.session import Session
from dse.search.space import SearchSpace

BASELINE = "baseline:"


@dataclass(frozen=True)
class Baseline:
    """A baseline before it is scored."""

    label: str
    kind: Literal["unpruned", "uniform"]
    ratio: float
    candidate: Candidate


def baselines(space: SearchSpace, *, uniform: tuple[float, ...]) -> Iterator[Baseline]:
    """List the baselines: the unpruned network, then uniform pruning by each ratio."""
    yield Baseline("unpruned", "unpruned", 0.0, Candidate(channels={}))
    for ratio in uniform:
        text = f"{ratio:.2f}" if round(ratio, 2) == ratio else f"{ratio:g}"
        yield Baseline(f"uniform {text}", "uniform", ratio, space.uniform(ratio))


def score_baselines(session: Session) -> tuple[BaselineRecord, ...]:
    """Score every baseline at fidelity `short`, over budget or not, and keep the records.

    Raises:
        TrainingError: if one diverges.
    """
    planned = tuple(baselines(session.space, uniform=session.study.search.uniform_baselines))
    session.meter.begin("baselines", total=len(planned))
    session.observer.on_phase("baselines", len(planned))
    return tuple(_score(session, baseline) for baseline in planned)


def _score(session: Session, baseline: Baseline) -> BaselineRecord:
    try:
        evaluation = session.trainer.score(baseline.candidate, fidelity="short")
    except TrainingError as error:
        raise TrainingError(f"baseline {baseline.label}: {error}") from error
    costs = session.costs.of(baseline.candidate)
    record = BaselineRecord(
        label=baseline.label,
        kind=baseline.kind,
        ratio=baseline.ratio,
        candidate=baseline.candidate,
        peak_bytes=costs["peak_bytes"],
        accuracy=evaluation.accuracy,
        values={"accuracy": evaluation.accuracy, **costs},
    )
    session.archive.set_user_attr(BASELINE + record.label, record.to_json())
    session.meter.done += 1
    session.meter.add_time("short", evaluation.wall_seconds)
    if session.gate.constraint(record.peak_bytes) <= 0:
        session.meter.add_point(record.values, baseline=True)
    session.observer.on_evaluation(record.label, record.accuracy, session.meter.now)
    return record
