"""From a request to one step: the network, the channels it keeps, and its settings.

Command-line flags override the candidate, which overrides the study.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dse.candidate import Candidate, kept_channels
from dse.config import SpaceConfig, resolve_space
from dse.config.fields import canonical_blocks, lean_within
from dse.config.lora import with_lora
from dse.engines.engine import engine_plan, study_plan
from dse.engines.network import run_by
from dse.errors import CandidateError, ConfigError, PruningError
from dse.footprint.request import FootprintRequest, StepOverrides
from dse.footprint.target import Target, read_target
from dse.inputs import InputSpec
from dse.memory.conventions import CONVENTIONS, check_convention, operator_conventions
from dse.memory.trace import check_single_image
from dse.networks.build import build_network
from dse.networks.checks import check_network, check_prunable, image_channels, network_notes
from dse.networks.devices import check_device
from dse.networks.exported_library import check_input, exported_input
from dse.pruning.depth import Depth
from dse.pruning.groups import ChannelGroup, Survey, survey_channels
from dse.pruning.resize import resized
from dse.pruning.shares import WholeLayers, whole_layers
from dse.pruning.shorten import Shortener
from dse.step.canonical import Loss
from dse.step.settings import StepSettings
from dse.tasks.task import Task, TaskRequest, make_task
from dse.textfiles import read_text

_NO_GROUPS = Survey((), {})


@dataclass(frozen=True, kw_only=True, eq=False)
class ResolvedStep:
    """One step of one network, with nothing left open.

    Attributes:
        target: The network and what its study sets; the fields below override it.
        network: The unpruned network, without the blocks that are left out.
        running: The same as the step's engine runs it.
        example: Two samples to trace it with.
        groups: Its channel groups; empty if none are needed or found.
        kept: Channels kept in each group, (groups,).
        drop: Blocks that are left out, as in "features.3,features.5"; None for none.
        settings: Settings of the step.
        batch_size: Images per step.
        image_size: Height and width of the images in pixels.
        inputs: Shape and type of one sample.
        device: Device of the convention ``allocator`` and of the measurement.
        unprunable: Why the network has no channel groups; None if it has, or none are needed.
        whole: Layers that stay whole, by reason; empty if no groups are needed.
        depth: Blocks that can be left out of the whole network; None unless `explain` is requested.
    """

    target: Target
    network: nn.Module
    running: nn.Module
    example: torch.Tensor
    groups: Sequence[ChannelGroup]
    kept: Sequence[int]
    settings: StepSettings
    batch_size: int
    image_size: int
    inputs: InputSpec
    device: str
    drop: str | None = None
    unprunable: str | None = None
    whole: Sequence[WholeLayers] = ()
    depth: Depth | None = None

    def task_for(self, inputs: InputSpec) -> Task:
        """Return the network's task for samples of some shape."""
        return _task(self.target, inputs)

    @property
    def loss(self) -> Loss:
        """Loss of the step."""
        return self.task_for(self.inputs).loss

    def inputs_at(self, image_size: int | None) -> InputSpec:
        """Return the samples with another image size; None keeps them."""
        if image_size is None:
            return self.inputs
        return InputSpec.image(image_size, channels=self.inputs.shape[0])


def resolve(
    request: FootprintRequest, *, on_note: Callable[[str], None] = lambda _line: None
) -> ResolvedStep:
    """Read the study and the candidate of a request, and build the network.

    Args:
        request: What to resolve.
        on_note: Called with lines about a study's data, and about what in the network may surprise.

    Raises:
        DseError: If the target, the candidate or a setting is invalid, options don't go together,
            or the network can't be built, pruned or trained.
    """
    _check_ratio(request.ratio)
    candidate = read_candidate(request.candidate_file)
    drop = candidate.drop if request.drop is None else _read_drop(request.drop)
    target = read_target(request.target, classes=request.classes, changes=request.changes)
    for line in target.data.lines() if target.data else ():
        on_note(line)
    chosen = _given(candidate) | _given(request.overrides)
    batch_size = chosen.pop("batch_size", target.batch_size)
    image_size = chosen.pop("image_size", target.image_size)
    settings = _with_changes(target.settings, chosen)
    device = request.device or target.device
    _check_options(request, settings=settings, device=device)
    needs_groups = request.explain or request.ratio is not None or bool(candidate.channels)
    network = _build(target, prunable=needs_groups, inputs=request.inputs or target.inputs)
    inputs = _inputs(request, target, network, image_size=image_size)
    if exported_input(network) is not None and inputs.is_image:
        image_size = inputs.shape[-1]
    check_network(
        network,
        title=f"network {target.network!r}",
        size_key="--image-size or --input" if ":" in request.target else "the image size",
        inputs=inputs,
        classes=target.classes,
        outputs=target.task.outputs,
    )
    # Two images: batch normalisation can't train on a single 1x1 map.
    example = inputs.example(2)
    for line in network_notes(network, example):
        on_note(line)
    if batch_size == 1 and settings.mode == "training":
        check_single_image(network, example, scheme=settings.scheme)
    survey, unprunable = _surveyed(
        network,
        example,
        needed=needs_groups,
        useful=request.ram_bytes is not None,
    )
    shortener = Shortener(network, example)
    network = shortener.shortened(drop)
    groups = shortener.groups(survey.groups, drop)
    kept = _kept(request, candidate, groups=groups, space=target.space)
    pruned = any(count != group.channels for count, group in zip(kept, groups, strict=True))
    planned, plan_for = network, study_plan if pruned else engine_plan
    # A study's candidates share the plan that is made for the study's own batch.
    plan_batch = batch_size if target.space is None else target.batch_size
    if settings.engine == "lean" and request.ram_bytes is not None:
        # The plan of this very step, not one that all candidates share.
        settings = replace(settings, engine=lean_within(request.ram_bytes))
        planned, plan_for = resized(network, groups, kept) if pruned else network, engine_plan
        plan_batch = batch_size
    loss = _task(target, inputs).loss
    plan = plan_for(planned, example, settings=settings, batch_size=plan_batch, loss=loss)
    return ResolvedStep(
        target=target,
        network=network,
        running=run_by(network, example, plan),
        example=example,
        groups=groups,
        kept=kept,
        settings=settings,
        batch_size=batch_size,
        image_size=image_size,
        inputs=inputs,
        device=device,
        drop=drop,
        unprunable=unprunable,
        whole=_whole_layers(network, groups, survey),
        depth=shortener.depth if request.explain else None,
    )


def _inputs(
    request: FootprintRequest, target: Target, network: nn.Module, *, image_size: int
) -> InputSpec:
    """Return the samples of a step: as requested, else the study's, else images."""
    if request.inputs is not None:
        return request.inputs
    own = target.inputs
    if (exported := exported_input(network)) is not None and own is None:
        wanted = request.overrides.image_size
        if wanted is not None:
            check_input(exported, InputSpec.image(wanted), title=target.network)
        return exported
    if own is None:
        return InputSpec.image(image_size, channels=image_channels(network, image_size))
    if image_size == target.image_size:
        return own
    if not own.is_image:
        raise ConfigError(
            f"the study's samples are {own.text}, no images: leave the image size out"
        )
    return InputSpec.image(image_size, channels=own.shape[0])


def _task(target: Target, inputs: InputSpec) -> Task:
    request = TaskRequest(config=target.task, search_path=target.search_path)
    return make_task(request, outputs=target.classes, inputs=inputs)


def read_candidate(path: Path | None) -> Candidate:
    """Read a candidate from a JSON file; without a file, return the unpruned candidate.

    Raises:
        CandidateError: If the file can't be read or holds no valid candidate.
    """
    if path is None:
        return Candidate(channels={})
    try:
        text = read_text(path)
    except OSError as error:
        raise CandidateError(f"--candidate {path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CandidateError(f"--candidate {path} can't be read: it is not UTF-8") from error
    return Candidate.from_json(text, source=str(path))


def _read_drop(drop: str) -> str:
    """Return the canonical text of `--drop`.

    Raises:
        CandidateError: If it names no block, or one twice.
    """
    try:
        return canonical_blocks(drop)
    except ValueError as error:
        raise CandidateError(f"--drop {drop!r} {error}") from error


def kept_at_ratio(
    ratio: float, groups: Sequence[ChannelGroup], *, space: SpaceConfig | None
) -> tuple[int, ...]:
    """Prune every free group by one ratio; groups that the space fixes keep their own ratio.

    Args:
        ratio: Share of the channels to remove, from 0 to 1.
        groups: Channel groups of the network.
        space: Search space of the study; None leaves every group free.

    Returns:
        Channels kept in each group, (groups,).

    Raises:
        ConfigError: If the space doesn't fit the groups.
    """
    choices = resolve_space(space, groups) if space else (None,) * len(groups)
    kept = []
    for group, choice in zip(groups, choices, strict=True):
        if choice is not None and choice.fixed is not None:
            count = kept_channels(
                group.channels, choice.fixed, multiple=choice.multiple, floor=choice.floor
            )
        else:
            count = kept_channels(
                group.channels, ratio, multiple=group.multiple, floor=group.fewest
            )
        kept.append(count)
    return tuple(kept)


def _check_ratio(ratio: float | None) -> None:
    if ratio is not None and not (math.isfinite(ratio) and 0 <= ratio < 1):
        raise ConfigError(f"--ratio is {ratio}: it must lie between 0 and below 1, as in 0.5")


def _check_options(request: FootprintRequest, *, settings: StepSettings, device: str) -> None:
    """Refuse options that have no effect together, and a device that this machine lacks."""
    convention = request.convention
    check_convention(
        convention, settings=settings, element_bits=request.element_bits, probe=request.probe
    )
    runs_operators = CONVENTIONS[convention].runs_operators
    if request.device is not None and not runs_operators and not request.measure:
        raise ConfigError(
            f"--device {request.device} changes nothing with --convention {convention}: add "
            f"--measure or --convention {operator_conventions()}"
        )
    if runs_operators or (request.measure and request.device is not None):
        check_device(device, place="training.device" if request.device is None else "--device")
    if request.measure and settings.mode == "inference":
        raise ConfigError("--measure runs a training step: leave out --mode inference")


def _build(target: Target, *, prunable: bool, inputs: InputSpec | None) -> nn.Module:
    """Build the unpruned network of a target.

    Args:
        target: Names the network.
        prunable: Whether to refuse a network of a kind that can't be pruned.
        inputs: Shape and type of one sample, if it is known.
    """
    network = build_network(
        target.network,
        classes=target.classes,
        options=target.options,
        search_path=target.search_path,
        inputs=inputs,
        outputs=target.task.outputs,
    )
    if prunable:
        check_prunable(network)
    return network


def _given(source: Candidate | StepOverrides) -> dict[str, Any]:
    """Return the settings of a step that a candidate or the command line gives."""
    return {
        field.name: value
        for field in fields(StepOverrides)
        if (value := getattr(source, field.name, None)) is not None
    }


def _with_changes(settings: StepSettings, changes: dict[str, Any]) -> StepSettings:
    """Change settings; ``nesterov`` is kept only with the optimizer that it was set for.

    Raises:
        ConfigError: If adapters are changed of a scheme without them, or a value is invalid.
    """
    lora = {name: changes.pop(f"lora_{name}", None) for name in ("rank", "alpha", "targets")}
    if given := [name for name, value in lora.items() if value is not None]:
        try:
            scheme = with_lora(changes.get("scheme", settings.scheme), **lora)
        except ValueError as error:
            raise ConfigError(f"--lora-{given[0]} {error}") from error
        changes = {**changes, "scheme": scheme}
    optimizer = changes.get("optimizer", settings.optimizer)
    nesterov = settings.nesterov and optimizer == settings.optimizer
    return replace(settings, nesterov=nesterov, **changes)


def _surveyed(
    network: nn.Module, example: torch.Tensor, *, needed: bool, useful: bool
) -> tuple[Survey, str | None]:
    """Return the channel groups, and why there are none.

    Args:
        network: The unpruned network.
        example: Images to trace it with.
        needed: Whether a network that can't be pruned is an error.
        useful: Whether to look for groups although they aren't needed.

    Raises:
        PruningError: If the groups are needed and the network can't be pruned.
    """
    if not needed and not useful:
        return _NO_GROUPS, None
    try:
        return survey_channels(network, example), None
    except PruningError as error:
        if needed:
            raise
        return _NO_GROUPS, str(error)


def _whole_layers(
    network: nn.Module, groups: Sequence[ChannelGroup], survey: Survey
) -> tuple[WholeLayers, ...]:
    """Collect the layers that stay whole, of a network that may lack blocks of the surveyed one."""
    left = dict(network.named_modules())
    refused = {layer: reason for layer, reason in survey.refused.items() if layer in left}
    return whole_layers(network, groups, refused)


def _kept(
    request: FootprintRequest,
    candidate: Candidate,
    *,
    groups: Sequence[ChannelGroup],
    space: SpaceConfig | None,
) -> tuple[int, ...]:
    """Return the channels kept in each group, (groups,): by the ratio, else by the candidate."""
    if request.ratio is not None:
        return kept_at_ratio(request.ratio, groups, space=space)
    try:
        return candidate.kept(groups)
    except CandidateError as error:
        raise CandidateError(f"--candidate {request.candidate_file}: {error}") from error
