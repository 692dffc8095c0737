"""Builds everything a study needs before its first trial from the names in its file."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import nn

from dse.config import Study
from dse.data import DataSummary, load_data
from dse.engines.engine import study_plan
from dse.finetune.proxy import Proxy
from dse.methods.workbench import Workbench
from dse.networks.checks import network_notes
from dse.networks.study_network import network_without_weights
from dse.sampling.search_space import SearchSpace
from dse.search.costs import Costs
from dse.search.device_memory import beyond_tensors, device_peaks
from dse.search.fingerprint import confirmed, fingerprint_of, model_key_of
from dse.search.objectives import OBJECTIVES
from dse.search.run_file import RunFile
from dse.search.run_folder import RunFolder
from dse.search.run_models import StoredModels
from dse.search.trainer import Evaluator
from dse.search.weights import check_weights
from dse.tasks.task import Task, TaskRequest
from dse.weight_files import is_weights_file

Evaluator_co = TypeVar("Evaluator_co", bound=Evaluator, covariant=True)


@dataclass(frozen=True, kw_only=True)
class Resolved(Generic[Evaluator_co]):
    """The objects that a study's settings refer to.

    Attributes:
        classes: number of the network's outputs.
        task: what they stand for.
        network: the unpruned network without weights; only its shapes matter.
        space: the search space.
        costs: the objectives that need no training.
        build_evaluator: makes the evaluator; may download or pretrain weights, and calls its
            argument with the share of the pretraining that is done, from 0 to 1.
        preparation: one line on what takes long in `build_evaluator`; None if nothing does.
        fingerprint: identifies the network's shape and the data, which the study file doesn't show.
        model_key: digest of everything that the memory models were compiled from.
        data: summary of the data.
        files: size in bytes of each image file; None if the images are not files.
        excused: keys of the fingerprint that may differ because unreadable images were removed.
        memory_note: what the device holds beyond tensors; None if only tensors are counted.
        notes: notes on the network and its weights, one line each.
    """

    classes: int
    task: Task
    network: nn.Module
    space: SearchSpace
    costs: Costs
    build_evaluator: Callable[[Callable[[float], None]], Evaluator_co]
    preparation: str | None = None
    fingerprint: Mapping[str, Any]
    model_key: str
    data: DataSummary | None = None
    files: Mapping[str, int] | None = None
    excused: frozenset[str] = frozenset()
    memory_note: str | None = None
    notes: tuple[str, ...] = ()


Resolve = Callable[[Study, RunFolder, RunFile], Resolved[Evaluator]]


def resolve(
    study: Study,
    folder: RunFolder,
    file: RunFile,
    *,
    on_message: Callable[[str], None] = lambda _text: None,
) -> Resolved[Proxy]:
    """Read the data, build the network, find its groups and compile its memory model.

    Memory models are stored in the run folder, and loaded from there when a run is resumed.

    Args:
        study: the resolved study.
        folder: the run folder.
        file: the content of its `run.json`.
        on_message: called with lines about the data and about the progress of reading them.

    Raises:
        RunError: if the network or the data differ from those that the run began with.
        DseError: if anything else fails; the message says what, in one line.
    """
    data = load_data(study.data, seed=study.seed, task=TaskRequest.of(study), on_message=on_message)
    network = network_without_weights(study, classes=data.classes, inputs=data.input_spec)
    fingerprint = fingerprint_of(network, data)
    # Before a model of something else overwrites the run's own.
    excused = confirmed(folder, file, fingerprint, data, on_message)
    model_key = model_key_of(study, fingerprint)
    stored = StoredModels(folder, valid=file.model_key == model_key)
    bench = Workbench(study=study, network=network, classes=data.classes, store=stored)

    def build_evaluator(on_progress: Callable[[float], None]) -> Proxy:
        return Proxy.of(
            study,
            data=data,
            groups=bench.groups,
            make_plan=study_plan,
            on_progress=on_progress,
        )

    training = bench.model()
    for recipe in stored.outdated(bench.space.recipes):
        bench.model(recipe)
    on_device = device_peaks(study, network, classes=data.classes, groups=lambda: bench.groups)
    beyond = beyond_tensors(study, peak_bytes=on_device, model=training, space=bench.space)
    needs_inference = any(OBJECTIVES[one].uses_inference for one in study.search.objectives)
    return Resolved(
        classes=data.classes,
        task=data.task,
        network=network,
        space=bench.space,
        costs=Costs(
            training=training,
            inference=bench.model(mode="inference") if needs_inference else None,
            batch_size=study.training.batch_size,
            objectives=study.search.objectives,
            variant=bench.model,
            beyond_tensors_bytes=beyond.added_bytes,
            on_device=on_device,
        ),
        build_evaluator=build_evaluator,
        preparation=_preparation(study),
        fingerprint=fingerprint,
        model_key=model_key,
        data=data.summary,
        files=data.files,
        excused=excused,
        memory_note=beyond.text,
        notes=tuple(_notes(bench, classes=data.classes)),
    )


def _notes(bench: Workbench, *, classes: int) -> Iterator[str]:
    yield from network_notes(bench.network, bench.example)
    if is_weights_file(bench.study.network.weights):
        yield from check_weights(bench.study, classes)


def _preparation(study: Study) -> str | None:
    if study.network.pretrain is not None:
        return "takes the pretrained network from the cache, or pretrains it once"
    return None
