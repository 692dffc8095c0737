"""The state that the steps of one run share, and how a run sets it up."""

from dataclasses import dataclass
from functools import cache, cached_property

import optuna
from optuna.storages import BaseStorage
from torch import nn

from dse.config import Study
from dse.methods.workbench import space_of
from dse.sampling.front_sampler import Evaluated
from dse.sampling.propose import Proposer
from dse.sampling.search_space import SearchSpace
from dse.search.aiming import Aiming
from dse.search.costs import Costs
from dse.search.earlier_runs import earlier_rows
from dse.search.gate import Gate
from dse.search.ledger import Keep, Ledger
from dse.search.progress import Meter, Observer
from dse.search.reference import Tuner, scopes_of
from dse.search.resolve import Resolved
from dse.search.trainer import Evaluator, Trainer
from dse.search.workers import Colleagues


@dataclass(frozen=True, kw_only=True)
class Session:
    """One process working on one run.

    Attributes:
        study: the resolved study.
        archive: the Optuna study that results are written to.
        identity: identity of the run folder.
        network: the unpruned network without weights; only its shapes matter.
        space: the search space.
        costs: the objectives that need no training.
        gate: decides which candidates are trained.
        aiming: turns a draw into a candidate.
        trainer: trains candidates that the ledger doesn't hold.
        observer: receives the run's events.
        meter: counts and times the run.
        storage: the storage of the Optuna study.
        colleagues: the other workers of the study.
        evaluated: the candidates that the default sampler learns from.
    """

    study: Study
    archive: optuna.Study
    identity: str
    network: nn.Module
    space: SearchSpace
    costs: Costs
    gate: Gate
    aiming: Aiming
    trainer: Trainer
    observer: Observer
    meter: Meter
    storage: BaseStorage
    colleagues: Colleagues
    evaluated: Evaluated

    @cached_property
    def proposer(self) -> Proposer:
        """The proposer of the default sampler."""
        return self.aiming.proposer(self.meter.reference["accuracy"])


def tuned_session(
    study: Study,
    parts: Resolved[Evaluator],
    *,
    identity: str,
    archive: optuna.Study,
    gate: Gate,
    observer: Observer,
    meter: Meter,
    storage: BaseStorage,
    colleagues: Colleagues,
    keep: Keep,
) -> Session:
    """Tune the unpruned network's recipe, and return the session that applies it to everything.

    Args:
        study: the study with its budgets in bytes.
        parts: the objects that its settings refer to.
        identity: see `Session`.
        archive: see `Session`.
        gate: see `Session`.
        observer: see `Session`.
        meter: see `Session`.
        storage: see `Session`.
        colleagues: see `Session`.
        keep: keeps an evaluation that the storage doesn't take.
    """

    @cache
    def build() -> Evaluator:
        if parts.preparation is None:
            return parts.build_evaluator(observer.on_progress)
        observer.on_message(parts.preparation)
        observer.on_phase("pretraining", 1)
        evaluator = parts.build_evaluator(observer.on_progress)
        if meter.total:  # return to the phase that it interrupted
            observer.on_phase(meter.phase, meter.total)
        return evaluator

    tuning = Tuner(
        study=study,
        archive=archive,
        build=build,
        predict=parts.costs.peak_bytes,
        observer=observer,
        meter=meter,
        colleagues=colleagues,
        keep=keep,
    ).tuned()
    tuned = tuning.with_recipe(study)
    meter.full_to_short = tuned.proxy.full_epochs / tuned.proxy.short_epochs
    space = _space_under(tuned, parts)
    return Session(
        study=tuned,
        archive=archive,
        identity=identity,
        network=parts.network,
        space=space,
        costs=parts.costs,
        gate=gate,
        aiming=Aiming(space, parts.costs, tuned.search, tuned.seed),
        trainer=Trainer(
            Ledger(archive, unpruned_scopes=scopes_of(tuning, study), keep=keep),
            build=lambda: build().under(tuned),
            predict=parts.costs.peak_bytes,
            on_progress=observer.on_progress,
            colleagues=colleagues,
        ),
        observer=observer,
        meter=meter,
        storage=storage,
        colleagues=colleagues,
        evaluated=Evaluated(
            space,
            chance=meter.reference["accuracy"],
            earlier=earlier_rows(archive.user_attrs).values(),
        ),
    )


def _space_under(study: Study, parts: Resolved[Evaluator]) -> SearchSpace:
    """Return the space with the tuned learning rate in place of the study file's."""
    if study.space.joint is None:
        return parts.space
    depth = tuple(one for one in parts.space.joint if one.name == "drop")
    return space_of(study, parts.network, parts.costs.training.groups, depth=depth)
