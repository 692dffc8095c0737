"""A run's records with sizes of ExecuTorch's arena, so that candidates can be chosen by them."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from torch import Tensor, nn

from dse.candidate import Candidate, with_recipe
from dse.config import Study
from dse.data import inputs_of
from dse.deploy.lean_plan import shared_plan
from dse.deploy.measure import Measure, check_trust, measure_of
from dse.deploy.planned_records import resized_records
from dse.deploy.pte.arena import ArenaModel, step_arena_bytes
from dse.deploy.pte.file import check_study
from dse.engines.network import run_by
from dse.errors import ConfigError
from dse.footprint.rebuild import rebuild
from dse.memory.measure import Measurement
from dse.pruning.groups import ChannelGroup, find_groups
from dse.pruning.shorten import shortened
from dse.results.records import RunRecords
from dse.step.schemes import apply_scheme
from dse.step.settings import StepSettings

ARENA_NOTE = (
    "sizes are of ExecuTorch's arena: trained weights, inputs, gradients and activations. SGD's "
    "momentum and weights that don't train come on top. Times are PyTorch's"
)


def arena_records(records: RunRecords) -> RunRecords:
    """Return a run's records with predicted arenas in place of predicted peaks.

    Candidates with a recipe that ExecuTorch can't train are left out. ExecuTorch isn't needed.

    Raises:
        ConfigError: if ExecuTorch can't train the unpruned network as the study does.
        RunError: if the run isn't trusted to build its network.
        ExportError: if the step can't be exported.
    """
    check_trust(records)
    check_study(with_recipe(records.study, Candidate()))
    arena = arena_of(records)
    return resized_records(records, arena, keeps=lambda one: _is_trainable(records.study, one))


def arena_of(records: RunRecords) -> Callable[[Candidate], int]:
    """Return a function that predicts the arena of a run's candidate in bytes.

    A network is exported twice for each scheme, engine and size of samples, not for each candidate.
    """
    models: dict[tuple[object, ...], tuple[ArenaModel, tuple[ChannelGroup, ...]]] = {}

    @cache
    def arena(candidate: Candidate) -> int:
        study = with_recipe(records.study, candidate)
        scheme = study.training.scheme
        key = (scheme, candidate.drop, inputs_of(study.data).shape, _planned_for(study))
        if key not in models:
            whole, example = _built(study, Candidate(), records.classes)
            found = find_groups(whole, example)
            network, groups = shortened(whole, example, found, candidate.drop)
            own = run_by(network, example, shared_plan(records, study, network, example))
            models[key] = (
                ArenaModel.compile(own, example, groups=groups, scheme=scheme),
                groups,
            )
        model, groups = models[key]
        return model.arena_bytes(candidate.kept(groups), batch_size=study.training.batch_size)

    return arena


def arena_measure_of(records: RunRecords) -> Measure:
    """Return a function that runs a candidate's step, and exports it for the size of its arena.

    Raises:
        RunError: if the run isn't trusted to build its network.
    """
    measure = measure_of(records)

    def measured(candidate: Candidate) -> Measurement:
        study = with_recipe(records.study, candidate)
        scheme = study.training.scheme
        network, example = _built(
            study, candidate.model_copy(update={"scheme": scheme}), records.classes
        )
        apply_scheme(network, example, scheme)
        samples = inputs_of(study.data).example(study.training.batch_size)
        unpruned, _ = _built(study, Candidate(drop=candidate.drop), records.classes)
        own = run_by(network, samples, shared_plan(records, study, unpruned, example))
        return replace(measure(candidate), peak_bytes=step_arena_bytes(own, samples))

    return measured


def _planned_for(study: Study) -> StepSettings | None:
    """Return the settings that a lean step's plan depends on; None without a plan."""
    settings = StepSettings.of(study.training)
    return settings if settings.lean else None


def _built(study: Study, candidate: Candidate, classes: int) -> tuple[nn.Module, Tensor]:
    inputs = inputs_of(study.data)
    network = rebuild(
        study.network.name,
        classes=classes,
        inputs=inputs,
        candidate=candidate,
        options=study.network.options,
        search_path=study.source_dir,
    )
    return network, inputs.example(2)


def _is_trainable(study: Study, candidate: Candidate) -> bool:
    try:
        check_study(with_recipe(study, candidate))
    except ConfigError:
        return False
    return True
