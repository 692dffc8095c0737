"""The recipe that was tuned for the unpruned network, as a run stores it."""

import math
import statistics
from dataclasses import dataclass
from typing import Literal

from dse.config import Study
from dse.measures import Measure, measure_of
from dse.results.json_record import JsonRecord

_ACCURACY = measure_of("accuracy")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One recipe that was tried on the unpruned network.

    Attributes:
        learning_rate: Peak learning rate of the cycle.
        epochs: Number of epochs of fine-tuning.
        fidelity: `short` or `full`.
        accuracies: For each seed, the study's metric on the selection part. Empty if the training
            diverged.
        losses: For each seed, the loss on the selection part.
    """

    learning_rate: float
    epochs: float
    fidelity: Literal["short", "full"]
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Mean accuracy over the seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def rank(self) -> tuple[float, float]:
        """Sort key among attempts of one fidelity. Larger is better."""
        if not self.accuracies:
            return (-math.inf, 0.0)
        return (self.accuracy, -statistics.fmean(self.losses))

    def text(self, measure: Measure = _ACCURACY) -> str:
        """One line with the recipe and its result, in the unit of the study's metric."""
        found = self.accuracies
        result = "diverged"
        if found:
            spread = f" ± {measure.spread_number(statistics.stdev(found))}" if found[1:] else ""
            result = f"{measure.number(self.accuracy)}{spread}{' %' if measure.percent else ''}"
        length = f"{self.epochs:g} epoch{'s' * (self.epochs != 1)}"
        return f"rate {self.learning_rate:g}, {length}: {result}"


@dataclass(frozen=True, kw_only=True)
class Tuning(JsonRecord):
    """The tuned recipe of a run, with all attempts.

    Attributes:
        learning_rate: Learning rate of all candidates that do not set their own.
        full_epochs: Number of epochs at fidelity `full`.
        attempts: Attempts in order. Empty if nothing was tried.
    """

    learning_rate: float
    full_epochs: float
    attempts: tuple[Attempt, ...] = ()

    def with_recipe(self, study: Study) -> Study:
        """Return the study with this recipe."""
        training = study.training.model_copy(update={"learning_rate": self.learning_rate})
        proxy = study.proxy.model_copy(update={"full_epochs": self.full_epochs})
        return study.model_copy(update={"training": training, "proxy": proxy})
