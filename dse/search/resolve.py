"""Builds everything a study needs before its first trial from the names in its file."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from dse.candidate import Candidate, with_recipe
from dse.config import Study
from dse.config.space import NamedGroup
from dse.data import DataParts, DataSummary, load_data
from dse.data.survey import reading
from dse.digests import json_digest
from dse.errors import DseError, MemoryModelError, RunError
from dse.finetune.pretrain import starting_network
from dse.finetune.proxy import Proxy
from dse.finetune.recovery import recovery_of
from dse.memory.cache import compiled_model
from dse.memory.model import MemoryModel
from dse.memory.trace import check_single_image
from dse.names import Mode
from dse.networks.build import example_input
from dse.networks.checks import network_notes
from dse.networks.fixed import fixed_parameters
from dse.networks.study_network import network_without_weights
from dse.pruning.channel_group import ChannelGroup
from dse.pruning.groups import find_groups
from dse.sampling.joint import joint_choices
from dse.sampling.search_space import SearchSpace
from dse.search.costs import Costs, memory_recipe
from dse.search.data_files import taken_out
from dse.search.device_memory import beyond_tensors, device_peaks
from dse.search.run_folder import RunFile, RunFolder
from dse.search.trainer import Evaluator
from dse.search.weights import check_weights
from dse.step.settings import StepSettings
from dse.weight_files import is_weights_file

_LOG = logging.getLogger(__name__)

# Keys of the fingerprint that may be excused.
DATA_FILES = "data files (by name and size)"
DATA_IMAGES = "data images"

# Steps are traced with two images because batch norm can't train on a single 1x1 map.
_TRACED_BATCH = 2


Evaluator_co = TypeVar("Evaluator_co", bound=Evaluator, covariant=True)


@dataclass(frozen=True, kw_only=True)
class Resolved(Generic[Evaluator_co]):
    """The objects that a study's settings refer to.

    Attributes:
        classes: number of the network's outputs.
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
    data = _read(study, on_message)
    network = network_without_weights(study, classes=data.classes)
    example = example_input(_TRACED_BATCH, study.data.image_size)

    @cache
    def groups() -> tuple[ChannelGroup, ...]:
        return find_groups(network, example)

    fingerprint = _fingerprint(network, data)
    # Before a model of something else overwrites the run's own.
    excused = _confirmed(folder, file, fingerprint, data, on_message)
    model_key = _model_key(study, fingerprint)
    known = file.model_key == model_key

    @cache
    def model(recipe: Candidate, mode: Mode) -> MemoryModel:
        path = folder.memory_model_of(recipe, mode)
        if known and (kept := _kept(path)) is not None:
            return kept
        compiled = compile_recipe(study, recipe, network, groups=groups(), mode=mode)
        try:
            path.parent.mkdir(exist_ok=True)
            compiled.save(path)
        except OSError as error:
            raise RunError(
                f"{path} can't be written: {error.strerror}; free disk space or fix its "
                "permissions, and run again"
            ) from error
        return compiled

    def build_evaluator(on_progress: Callable[[float], None]) -> Proxy:
        return Proxy(
            study=study,
            network=starting_network(study, classes=data.classes, on_progress=on_progress),
            data=data,
            groups=groups(),
            recovery=recovery_of(study, groups=groups(), on_progress=on_progress),
        )

    own = Candidate()
    training = model(own, "training")
    space = space_of(study, network, training.groups)
    if not known:  # another release compiled these; recompile now those that a report may load
        recipes = {memory_recipe(recipe) for recipe in space.recipes} - {own}
        drawn = {folder.memory_model_of(recipe): recipe for recipe in recipes}
        for path in folder.variants():
            path.unlink()
            if path in drawn:
                model(drawn[path], "training")
    on_device = device_peaks(study, network, groups=groups)
    beyond = beyond_tensors(study, peak_bytes=on_device, model=training, space=space)
    needs_inference = "inference_peak_bytes" in study.search.objectives
    return Resolved(
        classes=data.classes,
        network=network,
        space=space,
        costs=Costs(
            training=training,
            inference=model(own, "inference") if needs_inference else None,
            batch_size=study.training.batch_size,
            objectives=study.search.objectives,
            variant=model,
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
        notes=tuple(_notes(study, network, example, classes=data.classes)),
    )


def _kept(path: Path) -> MemoryModel | None:
    """Load a memory model from the run folder; return None if it is missing or damaged."""
    if not path.is_file():
        return None
    try:
        return MemoryModel.load(path)
    except MemoryModelError as error:
        _LOG.warning("%s; it is compiled anew", error)
        return None


def _read(study: Study, on_message: Callable[[str], None]) -> DataParts:
    """Load the data, and report how they were understood."""
    data = load_data(study.data, seed=study.seed, tell=reading(on_message))
    for line in data.summary.lines() if data.summary else ():
        on_message(line)
    return data


def _confirmed(
    folder: RunFolder,
    file: RunFile,
    fingerprint: Mapping[str, Any],
    data: DataParts,
    on_message: Callable[[str], None],
) -> frozenset[str]:
    """Check that the network and the data are those that the run began with.

    Returns:
        Keys of the fingerprint that may differ because unreadable images were removed.

    Raises:
        RunError: if anything else differs; the message names it.
    """
    of_files = frozenset({DATA_FILES, DATA_IMAGES})
    folder.confirm(file, fingerprint, excused=of_files)
    gone = taken_out(folder.path, data.files)
    excused = of_files if gone else frozenset[str]()
    folder.confirm(file, fingerprint, excused=excused)
    if gone:
        on_message(
            f"{len(gone)} images that can't be read were taken out since the run began, such as "
            f"{gone[0]}: it goes on without them, and what was scored before keeps its score"
        )
    return excused


def space_of(study: Study, network: nn.Module, groups: Sequence[NamedGroup]) -> SearchSpace:
    """Build a study's search space.

    Args:
        study: the resolved study.
        network: the unpruned network; it is run on images of the study's size.
        groups: channel groups of the network.

    Raises:
        DseError: if a key of `space` names something that the network doesn't have, or batches of
            one image are requested on which batch norm can't train.
    """
    space = SearchSpace.resolve(study.space, groups, joint=joint_choices(study, network))
    _check_single_images(study, network, space)
    return space


def compile_recipe(
    study: Study,
    recipe: Candidate,
    network: nn.Module,
    *,
    groups: tuple[ChannelGroup, ...],
    mode: Mode,
) -> MemoryModel:
    """Compile the memory model of one of a study's recipes; see `compile_model`.

    Raises:
        DseError: if it can't be modelled; the message names how the recipe differs from the study.
    """
    own = with_recipe(study, recipe)
    step = example_input(_TRACED_BATCH, own.data.image_size)
    try:
        return compile_model(own, network, step, groups=groups, mode=mode)
    except DseError as error:
        if not recipe.recipe_text:
            raise
        place = "baselines" if study.space.joint is None else "space.joint"
        raise type(error)(f"{place}, {recipe.recipe_text}: {error}") from error


def compile_model(
    study: Study,
    network: nn.Module,
    example: torch.Tensor,
    *,
    groups: tuple[ChannelGroup, ...],
    mode: Mode,
) -> MemoryModel:
    """Compile the memory model of a study's training step, or of inference, using the cache.

    Raises:
        MemoryModelError: if the step can't be modelled.
    """
    return compiled_model(
        network,
        example,
        settings=replace(StepSettings.of(study.training), mode=mode),
        groups=groups,
    )


def shape_digest(network: nn.Module) -> str:
    """Return a digest of the names and shapes of parameters and buffers, as 16 hex digits."""
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    return json_digest(shapes)


def _check_single_images(study: Study, network: nn.Module, space: SearchSpace) -> None:
    """Check up front that batch norm can train on every batch of one image in the space.

    Raises:
        MemoryModelError: if it can't under some recipe; the message names the key to change.
    """
    alone = {
        (recipe.scheme or study.training.scheme, recipe.image_size or study.data.image_size): recipe
        for recipe in space.recipes
        if (recipe.batch_size or study.training.batch_size) == 1
    }
    for (scheme, side), recipe in alone.items():
        try:
            check_single_image(network, example_input(_TRACED_BATCH, side), scheme=scheme)
        except MemoryModelError as error:
            place = "space.joint.batch_size" if recipe.batch_size else "training.batch_size"
            raise MemoryModelError(
                f"{place} holds 1, and under scheme {scheme} on {side}x{side} px {error}"
            ) from error


def _fingerprint(network: nn.Module, data: DataParts) -> dict[str, Any]:
    """What a run must find again to go on."""
    found: dict[str, Any] = {
        "network": shape_digest(network),
        "data.labels": list(data.labels),
        DATA_IMAGES: [len(data.train), len(data.selection), len(data.validation)],
    }
    if fixed := fixed_parameters(network):
        found["frozen by the factory"] = sorted(fixed)
    if data.files is not None:
        found[DATA_FILES] = json_digest(dict(data.files))
    return found


def _notes(
    study: Study, network: nn.Module, example: torch.Tensor, *, classes: int
) -> Iterator[str]:
    yield from network_notes(network, example)
    if is_weights_file(study.network.weights):
        yield from check_weights(study, classes)


def _preparation(study: Study) -> str | None:
    if study.network.pretrain is not None:
        return "takes the pretrained network from the cache, or pretrains it once"
    return None


def _model_key(study: Study, fingerprint: Mapping[str, Any]) -> str:
    """Return a digest of everything that the memory models depend on."""
    training = study.training.model_dump(exclude={"learning_rate", "threads", "device"})
    return json_digest(
        {
            "network": [study.network.name, study.network.options, fingerprint["network"]],
            "frozen": fingerprint.get("frozen by the factory"),
            "image_size": study.data.image_size,
            "training": training,
            "versions": {name: version(name) for name in ("dse", "torch", "torchvision")},
        }
    )
