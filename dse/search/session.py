"""The state that the steps of one run share."""

from dataclasses import dataclass

import optuna
from torch import nn

from dse.config import Study
from dse.sampling.search_space import SearchSpace
from dse.search.costs import Costs
from dse.search.gate import Gate
from dse.search.progress import Meter, Observer
from dse.search.shape import Shape
from dse.search.trainer import Trainer


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
        shape: turns a draw into a candidate.
        trainer: trains candidates that the ledger doesn't hold.
        observer: receives the run's events.
        meter: counts and times the run.
    """

    study: Study
    archive: optuna.Study
    identity: str
    network: nn.Module
    space: SearchSpace
    costs: Costs
    gate: Gate
    shape: Shape
    trainer: Trainer
    observer: Observer
    meter: Meter
