"""Measure a training step of a run's candidate on this machine."""

from collections.abc import Callable
from typing import Any

from dse.candidate import Candidate, with_recipe
from dse.data import inputs_of
from dse.footprint.measure import built_candidate
from dse.footprint.speed import Speed, compare_speed
from dse.memory.measure import Measurement, enough_memory_for, measure_peak, ready_step
from dse.networks.devices import threads_set
from dse.results.records import RunRecords
from dse.step.settings import StepSettings
from dse.tasks.task import step_task
from dse.trust.studies import objection_to_step, untrusted

Measure = Callable[[Candidate], Measurement]


def measure_of(records: RunRecords) -> Measure:
    """Return a function that measures a candidate's training step on this machine.

    Raises:
        RunError: if the run isn't trusted to build its network.
    """
    check_trust(records)

    def measure(candidate: Candidate) -> Measurement:
        step = _step(records, candidate)
        with threads_set(records.study.training.threads):
            built = built_candidate(*_named(records, candidate), **step)
            loss = step["task"].on(step["device"])
            return measure_peak(*built, settings=step["settings"], loss=loss)

    return measure


def speed_of(records: RunRecords) -> Callable[[Candidate], Speed]:
    """Return a function that compares a candidate's speed with the unpruned network's, here.

    Raises:
        RunError: if the run isn't trusted to build its network.
    """
    check_trust(records)

    def compare(candidate: Candidate) -> Speed:
        with threads_set(records.study.training.threads):
            pair, counts = [], []
            for one in (candidate, Candidate()):
                step = _step(records, one)
                settings = step["settings"]
                with enough_memory_for("a step of the unpruned network beside a pruned one"):
                    built = built_candidate(*_named(records, one), **step)
                    loss = step["task"].on(step["device"])
                    pair.append(ready_step(*built, settings=settings, loss=loss))
                counts.append(step["batch_size"] * settings.accumulate)
            with enough_memory_for("a step of the unpruned network beside a pruned one"):
                return compare_speed(pair[0], pair[1], samples=(counts[0], counts[1]))

    return compare


def check_trust(records: RunRecords) -> None:
    """Raise a RunError unless a run is trusted to build its network."""
    if not records.trusted:
        objection = objection_to_step(records.study)
        if objection is not None:
            raise untrusted(records.folder, objection)


def _named(records: RunRecords, candidate: Candidate) -> tuple[str, Candidate]:
    return records.study.network.name, candidate


def _step(records: RunRecords, candidate: Candidate) -> dict[str, Any]:
    """Return how a candidate's training step is run, as arguments of `built_candidate`."""
    study = records.study
    own = with_recipe(study, candidate)
    inputs = inputs_of(own.data)
    return {
        "classes": records.classes,
        "inputs": inputs,
        "batch_size": own.training.batch_size,
        "settings": StepSettings.of(own.training),
        "options": study.network.options,
        "search_path": study.source_dir,
        "device": own.training.device,
        "plan_batch_size": study.training.batch_size,
        "task": step_task(own, outputs=records.classes, inputs=inputs),
    }
