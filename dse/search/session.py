"""What the steps of one run share."""

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
    """One process at work on one run.

    Attributes:
        study: the resolved study.
        archive: the Optuna study that everything is written to.
        identity: of the run folder.
        network: unpruned; its shapes alone count.
        space: what may vary.
        costs: what needs no training.
        gate: what may be trained.
        shape: makes a candidate of a draw.
        trainer: trains through the ledger.
        observer: is told what happens.
        meter: counts and times it.
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
