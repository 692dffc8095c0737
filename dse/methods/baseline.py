"""Evaluates one baseline method on a study: peak memory and accuracy of each alternative."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dse.candidate import Candidate, with_recipe
from dse.config import Study, budget_bytes, with_budgets
from dse.data import DataSummary, check_data, inputs_of, load_data
from dse.data.parts import DataParts
from dse.engines.engine import study_plan
from dse.errors import ConfigError
from dse.finetune.proxy import Proxy
from dse.measures import Measure, measure_of
from dse.memory.timeline import Breakdown
from dse.methods.alternatives import Alternative, Subject, alternatives
from dse.methods.workbench import Workbench
from dse.names import FIDELITIES, Fidelity, dropped, use
from dse.networks.cores import threads_chosen
from dse.networks.study_network import network_without_weights
from dse.tasks.task import TaskRequest

SCHEMA_VERSION = 1
_ACCURACY = measure_of("accuracy")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One alternative with its figures.

    Attributes:
        alternative: the alternative.
        breakdown: breakdown of its training step's peak, by the convention `tensors`.
        accuracies: one per seed, on the validation part at fidelity `full` and on the selection
            part otherwise; empty if nothing was trained.
        measure: how they are written in the metric's own unit.
    """

    alternative: Alternative
    breakdown: Breakdown
    accuracies: tuple[float, ...] = ()
    measure: Measure = _ACCURACY

    @property
    def accuracy(self) -> float | None:
        """Mean accuracy over the seeds; None if nothing was trained."""
        return statistics.fmean(self.accuracies) if self.accuracies else None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A method's alternatives beside the unpruned network under the study's own settings.

    Attributes:
        method: name of the method.
        study: the study.
        fidelity: fidelity of the trainings; None if nothing was trained.
        unpruned: the unpruned network.
        outcomes: the alternatives, in the method's order.
    """

    method: str
    study: Study
    fidelity: Fidelity | None
    unpruned: Outcome
    outcomes: tuple[Outcome, ...]

    def reductions(self, outcome: Outcome) -> tuple[float, float]:
        """Return the shares of peak activation and of the whole peak that are saved, 0 to 1."""
        whole, own = self.unpruned.breakdown, outcome.breakdown
        return (
            1 - own.peak_activation_bytes / whole.peak_activation_bytes,
            1 - own.peak_bytes / whole.peak_bytes,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the object that `dse baseline --json` prints (docs/schemas/baseline-1.json)."""
        training = self.study.training
        return {
            "version": SCHEMA_VERSION,
            "method": self.method,
            "study": self.study.name,
            "convention": "tensors",
            "scheme": training.scheme,
            "batch_size": training.batch_size,
            "image_size": self.study.data.image_size,
            "recovery": None if self.study.recovery is None else self.study.recovery.aim,
            "fidelity": self.fidelity,
            "metric": self.study.metric,
            "metric_range": [self.unpruned.measure.worthless, self.unpruned.measure.ideal],
            "unpruned": self._row(self.unpruned),
            "alternatives": [self._row(one) for one in self.outcomes],
        }

    def _row(self, outcome: Outcome) -> dict[str, Any]:
        activation, total = self.reductions(outcome)
        chosen = outcome.alternative
        own = with_recipe(self.study, chosen.candidate)
        training = own.training
        return {
            "label": chosen.label,
            "channels": dict(chosen.candidate.channels),
            "drop": list(dropped(chosen.candidate.drop)),
            "scheme": training.scheme,
            "batch_size": training.batch_size,
            "accumulate": training.accumulate,
            "checkpointing": training.checkpointing,
            "engine": training.engine,
            "image_size": own.data.image_size,
            "peak_bytes": outcome.breakdown.peak_bytes,
            "peak_activation_bytes": outcome.breakdown.peak_activation_bytes,
            "activation_reduction": activation,
            "total_reduction": total,
            "accuracy": outcome.accuracy,
            "accuracies": list(outcome.accuracies),
        }


def compare(
    method: str,
    study: Study,
    *,
    fidelity: Fidelity | None = None,
    on_outcome: Callable[[Outcome], None] = lambda _outcome: None,
    on_message: Callable[[str], None] = lambda _text: None,
) -> Comparison:
    """Evaluate a baseline method, which needs no search, on a study.

    Args:
        method: one of `dse.methods.alternatives.METHODS`.
        study: the study, as loaded from its file.
        fidelity: fidelity of the trainings. None trains nothing, and reads no data if the study's
            settings determine the number of classes.
        on_outcome: called with each outcome as soon as it is known.
        on_message: called with lines about the data.

    Raises:
        DseError: if the method is unknown, or the network or the data can't be loaded.
    """
    bench = _Bench(study, on_message)
    if fidelity is None:
        for line in bench.known.lines():
            on_message(line)
        return _compared(method, bench, fidelity=None, on_outcome=on_outcome)
    training = study.training
    with threads_chosen(training.threads, device=training.device, on_message=on_message):
        return _compared(method, bench, fidelity=fidelity, on_outcome=on_outcome)


def _compared(
    method: str,
    bench: "_Bench",
    *,
    fidelity: Fidelity | None,
    on_outcome: Callable[[Outcome], None],
) -> Comparison:
    """Evaluate the unpruned network and a method's alternatives."""
    unpruned = Alternative(method=method, label="unpruned", candidate=Candidate())
    listed = [unpruned, *alternatives(method, bench.subject)]
    outcomes = []
    for one in listed:
        outcome = Outcome(
            alternative=one,
            breakdown=bench.breakdown(one.candidate),
            accuracies=() if fidelity is None else bench.accuracies(one.candidate, fidelity),
            measure=measure_of(bench.study.metric) if fidelity is None else bench.data.task.measure,
        )
        on_outcome(outcome)
        outcomes.append(outcome)
    return Comparison(
        method=method,
        study=bench.study,
        fidelity=fidelity,
        unpruned=outcomes[0],
        outcomes=tuple(outcomes[1:]),
    )


class _Bench:
    """A study's parts, each built when it is first needed."""

    def __init__(self, study: Study, on_message: Callable[[str], None]) -> None:
        self.study = study
        self._on_message = on_message

    @cached_property
    def known(self) -> DataSummary:
        """Summary of the data, found without reading the images."""
        return check_data(self.study.data, task=self.study.task)

    @cached_property
    def classes(self) -> int:
        return self.known.classes or self.data.classes

    @cached_property
    def data(self) -> DataParts:
        study = self.study
        return load_data(
            study.data,
            seed=study.seed,
            task=TaskRequest.of(study),
            on_message=self._on_message,
        )

    @cached_property
    def workbench(self) -> Workbench:
        network = network_without_weights(
            self.study, classes=self.classes, inputs=inputs_of(self.study.data)
        )
        return Workbench(study=self.study, network=network, classes=self.classes)

    @cached_property
    def subject(self) -> Subject:
        bench, batch_size = self.workbench, self.study.training.batch_size
        whole = [group.channels for group in bench.groups]
        peak_bytes = int(bench.model().peaks(whole, batch_size=batch_size))
        budgets = budget_bytes(self.study.search.budgets, unpruned_peak_bytes=peak_bytes)
        return Subject(
            study=with_budgets(self.study, budgets),
            network=bench.network,
            space=bench.space,
            model=bench.model(),
        )

    @cached_property
    def proxy(self) -> Proxy:
        groups = self.workbench.groups
        return Proxy.of(self.study, data=self.data, groups=groups, make_plan=study_plan)

    def breakdown(self, candidate: Candidate) -> Breakdown:
        model = self.workbench.model(candidate)
        batch_size = candidate.batch_size or self.study.training.batch_size
        return model.breakdown(candidate.kept(model.groups), batch_size=batch_size)

    def accuracies(self, candidate: Candidate, fidelity: Fidelity) -> tuple[float, ...]:
        found = []
        for seed_index in range(self.study.proxy.full_seeds if fidelity == "full" else 1):
            evaluation = self.proxy.evaluate(
                candidate,
                fidelity=fidelity,
                seed_index=seed_index,
                read_validation=fidelity == "full",
            )
            read = evaluation.validation_accuracy
            found.append(evaluation.accuracy if read is None else read)
        return tuple(found)


def check_fidelity(text: str | None) -> Fidelity | None:
    """Validate the value of the flag `--fidelity`.

    Raises:
        ConfigError: if no fidelity has that name.
    """
    match text:
        case None | "calibrate" | "short" | "full":
            return text
    raise ConfigError(f"--fidelity {text!r} is not known: {use(FIDELITIES, given=text)}")
