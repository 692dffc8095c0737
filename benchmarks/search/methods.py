"""What is compared: plain Optuna, and the search itself with every sampler and every switch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import optuna
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState
from world import Kept, World

from dse.config import ReferenceConfig, Study
from dse.results.trials import trial_record
from dse.sampling.front_sampler import Evaluated
from dse.search.aiming import Aiming
from dse.search.baselines import score_baselines
from dse.search.costs import Costs
from dse.search.gate import Gate
from dse.search.ledger import Ledger
from dse.search.loop import sample
from dse.search.progress import Meter, Silent
from dse.search.resolve import Resolved
from dse.search.seeding import seed_trials
from dse.search.session import Session
from dse.search.trainer import Evaluator, Trainer
from dse.search.workers import Alone, Colleagues

OBJECTIVES = ("accuracy", "peak_bytes")


@dataclass(frozen=True)
class Point:
    """One evaluation, in the order they were made.

    Attributes:
        cost: images trained, and a third of those that only went forward.
        mean: what the candidate would score on average, where that is known.
    """

    peak_bytes: int
    accuracy: float
    cost: float
    mean: float | None = None


class Scorer(Evaluator, Protocol):
    """Scores channel counts: by a table, or by training."""

    @property
    def images_trained(self) -> int:
        """Of one evaluation at `short`."""

    @property
    def images_forward(self) -> int:
        """Of one evaluation at `short`."""

    def accuracy(self, kept: Kept) -> float:
        """At `short`, with the first seed."""

    def mean(self, kept: Kept) -> float | None:
        """What it would be on average; None where that isn't known."""


@dataclass(frozen=True)
class Method:
    """A way to search.

    Attributes:
        run: (seed, evaluations) to what was evaluated.
    """

    name: str
    run: Callable[[int, int], list[Point]]


def methods(world: World, evaluator: Scorer, *, slow: bool) -> list[Method]:
    """List all, plain ones first; those of Optuna's Gaussian process only if `slow`."""
    plain: dict[str, Callable[[int], BaseSampler]] = {
        "random": lambda seed: RandomSampler(seed=seed),
        "qmc": lambda seed: QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False),
        "tpe": lambda seed: TPESampler(seed=seed),
        "nsga2": lambda seed: NSGAIISampler(seed=seed),
    }
    settings: dict[str, dict[str, Any]] = {
        "front": {},
        "front, relax off": {"relax": False},
        "front, aim off": {"aim": False},
        "front, no uniform baselines": {"uniform_baselines": ()},
        "random": {"sampler": "random"},
        "random, relax off": {"sampler": "random", "relax": False},
        "random, aim off": {"sampler": "random", "aim": False},
        "tpe": {"sampler": "tpe"},
        "nsga2": {"sampler": "nsga2"},
        "nsga3": {"sampler": "nsga3"},
        "qmc": {"sampler": "qmc"},
    }
    found = [
        Method(f"plain {name}", _plain(world, evaluator, sampler))
        for name, sampler in plain.items()
    ]
    # What a careful user would add: generations that end before the search does, and the baselines.
    found += [
        Method(
            "plain nsga2, population 20",
            _plain(world, evaluator, lambda seed: NSGAIISampler(seed=seed, population_size=20)),
        ),
        Method(
            "plain tpe, baselines first",
            _plain(world, evaluator, plain["tpe"], first=baseline_ratios(world)),
        ),
    ]
    found += [
        Method(f"dse {name}", _searched(world, evaluator, changed))
        for name, changed in settings.items()
    ]
    if slow:  # a minute and more for 100 draws
        found += [
            Method("plain gp", _plain(world, evaluator, lambda seed: GPSampler(seed=seed))),
            Method("dse gp", _searched(world, evaluator, {"sampler": "gp"})),
            Method("dse gp, aim off", _searched(world, evaluator, {"sampler": "gp", "aim": False})),
        ]
    return found


def within(world: World, evaluator: Scorer, budget_bytes: int) -> list[Method]:
    """List what tells the gate's worth: searches for a device that most draws are too large for."""
    budget = {"budgets": (budget_bytes,)}
    alone = {**budget, "sampler": "random", "aim": False, "relax": False}
    settings = {
        "front": budget,
        "front, gate off": {**budget, "gate": False},
        "tpe": {**budget, "sampler": "tpe"},
        "tpe, gate off": {**budget, "sampler": "tpe", "gate": False},
        "random, gate alone": alone,
        "random, all off": {**alone, "gate": False},
    }
    return [
        *(
            Method(f"plain {name}", _plain(world, evaluator, sampler))
            for name, sampler in (
                ("tpe", lambda seed: TPESampler(seed=seed)),
                ("nsga2", lambda seed: NSGAIISampler(seed=seed)),
            )
        ),
        *(
            Method(f"dse {name}", _searched(world, evaluator, changed))
            for name, changed in settings.items()
        ),
    ]


def baseline_ratios(world: World) -> tuple[float, ...]:
    """Ratios of the baselines that every search of the package evaluates first."""
    return (0.0, *world.study.search.uniform_baselines)


def _plain(
    world: World,
    evaluator: Scorer,
    sampler: Callable[[int], BaseSampler],
    *,
    first: Sequence[float] = (),
) -> Callable[[int, int], list[Point]]:
    def run(seed: int, evaluations: int) -> list[Point]:
        """What a user would write: every draw is trained, and both objectives are reported."""
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler(seed))
        for ratio in first:
            uniform = world.space.uniform(ratio).kept(world.space.choices)
            study.enqueue_trial(dict(world.space.parameters(uniform)))
        points = []
        for _ in range(evaluations):
            trial = study.ask()
            candidate = world.space.candidate(world.space.draw(trial))
            point = _point(world, evaluator, candidate.kept(world.space.choices))
            study.tell(trial, [point.accuracy, point.peak_bytes])
            points.append(point)
        return points

    return run


def _searched(
    world: World, evaluator: Scorer, changed: dict[str, Any]
) -> Callable[[int, int], list[Point]]:
    def run(seed: int, evaluations: int) -> list[Point]:
        """A search by the package, kept in memory; baselines are evaluations like all others."""
        study = study_of(world, seed=seed, evaluations=evaluations, changed=changed)
        session = session_of(world, study, evaluator)
        baselines = score_baselines(session)
        seed_trials(session, baselines)
        sample(session, deadline=None)
        cost = evaluator.images_trained + evaluator.images_forward / 3
        evaluated = [(one.candidate, one.peak_bytes, one.accuracy) for one in baselines]
        for trial in session.archive.get_trials(states=(TrialState.COMPLETE,)):
            record = trial_record(trial, objectives=OBJECTIVES)
            if record is not None and record.baseline is None:  # a baseline was counted already
                evaluated.append((record.candidate, record.peak_bytes, trial.values[0]))
        choices = world.space.choices
        return [
            Point(peak_bytes, accuracy, cost, evaluator.mean(candidate.kept(choices)))
            for candidate, peak_bytes, accuracy in evaluated
        ]

    return run


def study_of(world: World, *, seed: int, evaluations: int, changed: dict[str, Any]) -> Study:
    """The world's study over the whole range of memory, without finalists."""
    search = world.study.search
    uniform = changed.get("uniform_baselines", search.uniform_baselines)
    update = {
        "budgets": (world.unpruned_peak_bytes,),
        "trials": evaluations - 1 - len(uniform),  # the unpruned network is a baseline too
        "finalists": 1,
        **changed,
    }
    proxy = world.study.proxy.model_copy(update={"full_seeds": 1})
    # Others than these five, whatever the study lists, would be evaluations too.
    methods = world.study.baselines.model_copy(update={"methods": ("uniform",)})
    return world.study.model_copy(
        update={
            "baselines": methods,
            "seed": seed,
            "search": search.model_copy(update=update),
            "proxy": proxy,
            "reference": ReferenceConfig(tune=False),
        }
    )


def resolved(world: World, study: Study, evaluator: Evaluator) -> Resolved:
    """A run's parts, with a table in place of training."""
    return Resolved(
        classes=world.classes,
        network=world.network,
        space=world.space,
        costs=costs_of(world, study),
        build_evaluator=lambda _on_progress: evaluator,
        fingerprint={"network": "recorded"},
        model_key="recorded",
    )


def costs_of(world: World, study: Study) -> Costs:
    """What needs no training."""
    return Costs(
        training=world.model,
        inference=None,
        batch_size=study.training.batch_size,
        objectives=OBJECTIVES,
    )


def session_of(
    world: World,
    study: Study,
    evaluator: Evaluator,
    *,
    storage: BaseStorage | None = None,
    colleagues: Colleagues | None = None,
) -> Session:
    """A search's parts, with a table in place of training, kept in memory.

    Args:
        world: the study's parts.
        study: see `study_of`.
        evaluator: in place of training.
        storage: where several workers meet; one of its own if None.
        colleagues: the other workers; none if None.
    """
    storage = storage or InMemoryStorage()
    archive = optuna.create_study(
        study_name="search",
        storage=storage,
        directions=["maximize", "minimize"],
        sampler=RandomSampler(seed=study.seed),
        load_if_exists=True,
    )
    costs = costs_of(world, study)
    return Session(
        study=study,
        archive=archive,
        identity="benchmark",
        network=world.network,
        space=world.space,
        costs=costs,
        gate=Gate(max(study.search.budget_bytes), active=study.search.gate),
        aiming=Aiming(world.space, costs, study.search, study.seed),
        trainer=Trainer(
            Ledger(archive),
            build=lambda: evaluator,
            predict=costs.peak_bytes,
            on_progress=lambda _share: None,
        ),
        observer=Silent(),
        meter=Meter(
            objectives=OBJECTIVES,
            reference={
                "accuracy": 1 / world.classes,
                "peak_bytes": world.unpruned_peak_bytes,
            },
            full_to_short=1.0,
            trials=study.search.trials,
            full_evaluations=0,
            started=0.0,
            budgets=study.search.budget_bytes,
        ),
        storage=storage,
        colleagues=colleagues or Alone(),
        evaluated=Evaluated(world.space, chance=1 / world.classes),
    )


def _point(world: World, evaluator: Scorer, kept: tuple[int, ...]) -> Point:
    return Point(
        world.peak_bytes(kept),
        evaluator.accuracy(kept),
        evaluator.images_trained + evaluator.images_forward / 3,
        evaluator.mean(kept),
    )
