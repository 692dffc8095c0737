"""The recipe that was found for the unpruned network, as a run keeps it."""

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from dse.config import Study
from dse.errors import RunError


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One recipe of the unpruned network.

    Attributes:
        learning_rate: Peak of the cycle.
        epochs: How long it was fine-tuned.
        fidelity: `short` or `full`.
        accuracies: On the selection part by the study's metric, one for each seed; empty where the
            training diverged.
        losses: On the same part, in the same order.
    """

    learning_rate: float
    epochs: float
    fidelity: Literal["short", "full"]
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def rank(self) -> tuple[float, float]:
        """What attempts of one fidelity are ordered by: the larger, the better."""
        if not self.accuracies:
            return (-1.0, 0.0)
        return (self.accuracy, -statistics.fmean(self.losses))

    @property
    def text(self) -> str:
        """The recipe and what came of it, in words."""
        found = [100 * one for one in self.accuracies]
        spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
        result = f"{100 * self.accuracy:.1f}{spread} %" if found else "diverged"
        length = f"{self.epochs:g} epoch{'s' * (self.epochs != 1)}"
        return f"rate {self.learning_rate:g}, {length}: {result}"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The recipe of a run, and all that was tried for it.

    Attributes:
        learning_rate: That all candidates train with which name none of their own.
        full_epochs: Of fidelity `full`.
        attempts: In order; empty where nothing was tried.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    learning_rate: float
    full_epochs: float
    attempts: tuple[Attempt, ...] = ()

    def with_recipe(self, study: Study) -> Study:
        """The study with this recipe."""
        training = study.training.model_copy(update={"learning_rate": self.learning_rate})
        proxy = study.proxy.model_copy(update={"full_epochs": self.full_epochs})
        return study.model_copy(update={"training": training, "proxy": proxy})

    def to_json(self) -> dict[str, Any]:
        """Return the object that `from_json` reads."""
        dumped: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return dumped

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, source: str) -> Self:
        """Read what `to_json` gave.

        Raises:
            RunError: it is damaged; names the first field that is.
        """
        try:
            return TypeAdapter(cls).validate_json(json.dumps(dict(data)))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "it"
            raise RunError(f"{source}: {place}: {first['msg']}") from error


_ADAPTER = TypeAdapter(Tuning)
