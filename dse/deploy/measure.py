"""Measure a training step of a run's candidate on this machine."""

from collections.abc import Callable

from dse.candidate import Candidate, with_recipe
from dse.data import inputs_of
from dse.footprint.measure import measure_candidate
from dse.memory.measure import Measurement
from dse.results.records import RunRecords
from dse.step.settings import StepSettings
from dse.trust.builders import objection_to_network
from dse.trust.studies import untrusted

Measure = Callable[[Candidate], Measurement]


def measure_of(records: RunRecords) -> Measure:
    """Return a function that measures a candidate's training step on this machine.

    Raises:
        RunError: if the run isn't trusted to build its network.
    """
    study = records.study
    if not records.trusted:
        objection = objection_to_network(study.network.name, study.network.options)
        if objection is not None:
            raise untrusted(records.folder, objection)

    def measure(candidate: Candidate) -> Measurement:
        own = with_recipe(study, candidate)
        training = own.training
        return measure_candidate(
            study.network.name,
            candidate,
            classes=records.classes,
            inputs=inputs_of(own.data),
            batch_size=training.batch_size,
            settings=StepSettings.of(training),
            options=study.network.options,
            search_path=study.source_dir,
            device=training.device,
            threads=training.threads,
            plan_batch_size=study.training.batch_size,
        )

    return measure
