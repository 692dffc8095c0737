"""Configurations that need no search: a front that doesn't beat them has shown nothing."""

from collections.abc import Iterator
from dataclasses import dataclass

from dse.candidate import Candidate
from dse.config import Study
from dse.errors import TrainingError
from dse.memory.model import MemoryModel
from dse.methods.candidates import greedy_within, random_candidates, uniform_label
from dse.methods.greedy import limits_of, peak_greedy
from dse.search.records import BaselineKind, BaselineRecord
from dse.search.session import Session
from dse.space.search_space import SearchSpace
from dse.units import format_size

BASELINE = "baseline:"


@dataclass(frozen=True)
class Baseline:
    """A baseline before it is scored."""

    label: str
    kind: BaselineKind
    ratio: float
    candidate: Candidate


RANDOM_DRAWS = 3


def baselines(study: Study, space: SearchSpace, model: MemoryModel) -> Iterator[Baseline]:
    """List a study's baselines: the unpruned network, then what its methods give.

    Args:
        study: says which methods, ratios, budgets and seed.
        space: how far each group may be pruned.
        model: of the training step.
    """
    yield Baseline("unpruned", "unpruned", 0.0, Candidate(channels={}))
    for method in study.baselines.methods:
        match method:
            case "uniform":
                yield from _uniform(space, study.search.uniform_baselines)
            case "peak-greedy":
                yield from _peak_greedy(space, model, study)
            case "random":
                yield from _random(space, seed=study.seed)


def _peak_greedy(space: SearchSpace, model: MemoryModel, study: Study) -> Iterator[Baseline]:
    """The rule's first network within each budget, largest budget first."""
    trajectory = peak_greedy(
        model, batch_size=study.training.batch_size, limits=limits_of(space.choices)
    )
    budgets = sorted(study.search.budgets, reverse=True)
    for budget, candidate in greedy_within(trajectory, model, budgets).items():
        label = f"peak-greedy {format_size(budget)}"
        yield Baseline(label, "peak-greedy", _removed(space, candidate), candidate)


def _random(space: SearchSpace, *, seed: int) -> Iterator[Baseline]:
    drawn = random_candidates(space, draws=RANDOM_DRAWS, seed=seed)
    for number, candidate in enumerate(drawn, 1):
        yield Baseline(f"random {number}", "random", _removed(space, candidate), candidate)


def _removed(space: SearchSpace, candidate: Candidate) -> float:
    """Share of all channels that a candidate lost."""
    full = sum(choice.channels for choice in space.choices)
    return 1 - sum(candidate.kept(space.choices)) / full


def _uniform(space: SearchSpace, ratios: tuple[float, ...]) -> Iterator[Baseline]:
    for ratio in ratios:
        yield Baseline(uniform_label(ratio), "uniform", ratio, space.uniform(ratio))


def score_baselines(session: Session) -> tuple[BaselineRecord, ...]:
    """Score every baseline at fidelity `short`, over budget or not, and keep the records.

    Raises:
        TrainingError: if one diverges.
    """
    planned = tuple(baselines(session.study, session.space, session.costs.training))
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
