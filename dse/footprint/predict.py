"""The memory of one training step of one network: predicted, and optionally measured."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from dse.candidate import Candidate
from dse.errors import CandidateError, ConfigError, PruningError
from dse.footprint.advice import Remedy, remedies
from dse.footprint.rebuild import measure_candidate
from dse.footprint.target import Asked, asked, at_ratio, read_candidate
from dse.memory.cache import compiled_model
from dse.memory.conventions import breakdown_by, check_convention
from dse.memory.explain import Explanation, explain
from dse.memory.probed import probed_timeline
from dse.memory.timeline import Breakdown, Timeline
from dse.memory.trace import check_single_image
from dse.names import Checkpointing, Mode, Precision
from dse.networks.build import build_network, example_input
from dse.networks.checks import check_network, check_prunable, image_channels, network_notes
from dse.networks.devices import check_device, threads_set
from dse.pruning.groups import ChannelGroup, find_groups
from dse.pruning.surgery import prune
from dse.step.settings import StepSettings

SCHEMA_VERSION = 1

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Command-line options of the step. None if an option was not given."""

    scheme: str | None = None
    batch_size: int | None = None
    image_size: int | None = None
    optimizer: str | None = None
    accumulate: int | None = None
    checkpointing: Checkpointing | None = None
    precision: Precision | None = None
    foreach: bool | None = None
    fused: bool | None = None
    mode: Mode | None = None


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What one training step holds at its peak.

    Attributes:
        network: Name of the network.
        batch_size: Images per step.
        image_size: Side of the images in pixels.
        settings: Settings of the step.
        convention: How memory is counted.
        device: Device of the convention `allocator` and of the measurement.
        probed: Whether workspace was measured by running each operator separately.
        breakdown: Bytes by category at the peak, and where the peak occurs.
        timeline: Memory over the step, under the convention ``tensors`` or ``allocator``.
        measured_peak_bytes: Measured peak of a real step. None if not requested.
        explanation: Explanation of the peak. None if not requested.
        ram_bytes: RAM that the step should fit into. None if not given.
        remedies: The unchanged step, then changes that make it smaller. Empty without `ram_bytes`.
        unprunable: Why pruning is not among the remedies. None if it is, or if groups were not
            needed.
    """

    network: str
    batch_size: int
    image_size: int
    settings: StepSettings
    convention: str
    device: str
    probed: bool
    breakdown: Breakdown
    timeline: Timeline
    measured_peak_bytes: int | None = None
    explanation: Explanation | None = None
    ram_bytes: int | None = None
    remedies: tuple[Remedy, ...] = ()
    unprunable: str | None = None

    @property
    def relative_error(self) -> float | None:
        """Relative error of the prediction: predicted over measured peak, minus 1."""
        if self.measured_peak_bytes is None:
            return None
        return self.breakdown.peak_bytes / self.measured_peak_bytes - 1

    def to_json(self) -> dict[str, Any]:
        """Return the object that `dse memory --json` prints (docs/schemas/memory-1.json)."""
        step = self.settings
        answer = {
            "version": SCHEMA_VERSION,
            "network": self.network,
            "scheme": step.scheme,
            "batch_size": self.batch_size,
            "image_size": self.image_size,
            "optimizer": step.optimizer,
            "step": {
                "mode": step.mode,
                "accumulate": step.accumulate,
                "checkpointing": step.checkpointing,
                "precision": step.precision,
                "foreach": step.foreach,
                "fused": step.fused,
                "memory_format": step.memory_format,
                "weight_decay": step.weight_decay,
                "nesterov": step.nesterov,
            },
            "convention": self.convention,
            "device": self.device,
            "probed": self.probed,
            **self.breakdown.to_json(),
        }
        if self.measured_peak_bytes is not None:
            answer["measured_peak_bytes"] = self.measured_peak_bytes
            answer["relative_error"] = self.relative_error
        if self.explanation is not None:
            answer["explanation"] = self.explanation.to_json()
        if self.ram_bytes is not None:
            answer["ram_bytes"] = self.ram_bytes
            answer["largest_batch_size"] = self.remedies[0].largest_batch_size
            answer["remedies"] = [asdict(remedy) for remedy in self.remedies]
            if self.unprunable is not None:
                answer["unprunable"] = self.unprunable
        return answer


def footprint(
    target: str,
    *,
    overrides: Overrides = Overrides(),  # immutable, so safe as a default
    classes: int | None = None,
    ratio: float | None = None,
    candidate_file: Path | None = None,
    changes: Sequence[str] = (),
    convention: str = "tensors",
    element_bits: int = 32,
    device: str | None = None,
    probe: bool = False,
    measure: bool = False,
    explained: bool = False,
    ram_bytes: int | None = None,
    on_progress: Callable[[str], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Footprint:
    """Predict, and optionally measure, the peak memory of one training step.

    Args:
        target: `torchvision:NAME`, `package.module:factory`, a study file or the name of a shipped
            study.
        overrides: Options that override the candidate's and the study's settings.
        classes: Number of outputs of the network.
        ratio: Pruning ratio of every group that the study's space does not fix, from 0 to below 1.
        candidate_file: JSON file of a candidate.
        changes: Overrides of the study's keys, such as ``data.root=images``.
        convention: How memory is counted.
        element_bits: Bits per floating-point element, for the convention `arena`.
        device: Device for the convention `allocator` and for ``measure``. Defaults to the study's
            device, or the CPU.
        probe: Run every operator again for the convention `allocator`, ignoring the cache.
        measure: Whether to run and measure a real step as well.
        explained: Whether to explain the peak, under the convention `tensors`.
        ram_bytes: RAM to find remedies for, under the convention `tensors`.
        on_progress: Called with a description of the next slow step.
        on_note: Called with each line on what of the network may surprise its author.

    Raises:
        DseError: If an argument is invalid, options exclude each other, or the network or study
            can't be loaded.
    """
    if ratio is not None and not (math.isfinite(ratio) and 0 <= ratio < 1):
        raise ConfigError(f"--ratio is {ratio}: it must lie between 0 and below 1, as in 0.5")
    candidate = read_candidate(candidate_file)
    said = asked(target, classes=classes, changes=changes)
    batch_size = _first(overrides.batch_size, candidate.batch_size, said.batch_size)
    image_size = _first(overrides.image_size, candidate.image_size, said.image_size)
    settings = _settings(said.settings, overrides, candidate)
    check_convention(convention, settings=settings, element_bits=element_bits, probe=probe)
    if device is not None and convention != "allocator" and not measure:
        raise ConfigError(
            f"--device {device} changes nothing with --convention {convention}: add --measure or "
            "--convention allocator"
        )
    place = device or said.device
    if convention == "allocator" or (measure and device is not None):
        check_device(place, place="--device" if device is not None else "training.device")
    if measure and settings.mode == "inference":
        raise ConfigError("--measure runs a training step: leave out --mode inference")

    pruned_too = explained or ratio is not None or bool(candidate.channels)
    network, channels = _checked_network(
        said,
        image_size=image_size,
        size_key="--image-size" if ":" in target else "the image size",
        pruned_too=pruned_too,
        on_note=on_note or _unheard,
    )
    # The step is traced with two images: batch normalisation can't train on a single 1x1 map.
    example = example_input(2, image_size, channels=channels)
    if batch_size == 1 and settings.mode == "training":
        check_single_image(network, example, scheme=settings.scheme)
    groups, unprunable = _groups(
        network,
        example,
        needed=pruned_too,
        useful=ram_bytes is not None,
    )
    if ratio is None:
        with _naming(candidate_file):
            kept = candidate.kept(groups)
    else:
        kept = at_ratio(ratio, groups, said.space)
    model = compiled_model(network, example, settings=settings, groups=groups)
    if convention == "allocator":
        with threads_set(said.threads):
            timeline = probed_timeline(
                network,
                example,
                batch_size=batch_size,
                settings=settings,
                device=place,
                groups=groups,
                channels=kept,
                renew=probe,
            )
        breakdown = timeline.breakdown()
    else:
        timeline = model.timeline(kept, batch_size=batch_size)
        breakdown = breakdown_by(
            convention,
            model,
            kept,
            batch_size=batch_size,
            network=network,
            example_input=example,
            groups=groups,
            element_bits=element_bits,
        )
    found: tuple[Remedy, ...] = ()
    if ram_bytes is not None:
        found = remedies(
            prune(network, groups=groups, kept=kept) if groups else network,
            image_size=image_size,
            image_channels=channels,
            settings=settings,
            batch_size=batch_size,
            ram_bytes=ram_bytes,
            pruning=model if groups else None,
            kept=kept,
            on_progress=on_progress,
        )
    return Footprint(
        network=said.network,
        batch_size=batch_size,
        image_size=image_size,
        settings=settings,
        convention=convention,
        device=place,
        probed=convention == "allocator",
        breakdown=breakdown,
        timeline=timeline,
        measured_peak_bytes=measure_candidate(
            said.network,
            Candidate.from_kept(groups, kept),
            classes=said.classes,
            options=said.options,
            search_path=said.search_path,
            batch_size=batch_size,
            image_size=image_size,
            image_channels=channels,
            settings=settings,
            device=place,
            threads=said.threads,
        ).peak_bytes
        if measure
        else None,
        explanation=explain(model, kept, batch_size=batch_size) if explained else None,
        ram_bytes=ram_bytes,
        remedies=found,
        unprunable=unprunable,
    )


def _checked_network(
    said: Asked,
    *,
    image_size: int,
    size_key: str,
    pruned_too: bool,
    on_note: Callable[[str], None],
) -> tuple[nn.Module, int]:
    """Build the network, and see that it runs on images with as many channels as it takes."""
    network = build_network(
        said.network, classes=said.classes, options=said.options, search_path=said.search_path
    )
    if pruned_too:
        check_prunable(network)
    channels = image_channels(network, image_size)
    check_network(
        network,
        title=f"network {said.network!r}",
        size_key=size_key,
        image_size=image_size,
        classes=said.classes,
        channels=channels,
    )
    for line in network_notes(network, example_input(2, image_size, channels=channels)):
        on_note(line)
    return network, channels


def _unheard(_text: str) -> None:
    """Nobody listens."""


@contextmanager
def _naming(candidate_file: Path | None) -> Iterator[None]:
    """Name the file in the error about a candidate that does not fit the network."""
    try:
        yield
    except CandidateError as error:
        raise CandidateError(f"--candidate {candidate_file}: {error}") from error


def _first(*values: T | None) -> T:
    """Return the first value that is not None."""
    return next(value for value in values if value is not None)


def _given(*values: Any) -> Any:
    """Return the first value that is not None, be it False or 0. None if there is none."""
    return next((value for value in values if value is not None), None)


def _settings(said: StepSettings, overrides: Overrides, candidate: Candidate) -> StepSettings:
    """Combine settings: command-line options override the candidate, which overrides the study."""
    scheme = _first(overrides.scheme, candidate.scheme, said.scheme)
    optimizer = _first(overrides.optimizer, candidate.optimizer, said.optimizer)
    changes = {
        name: value
        for name in ("accumulate", "checkpointing", "precision", "foreach", "fused", "mode")
        if (value := _given(getattr(overrides, name), getattr(candidate, name, None))) is not None
    }
    # Nesterov momentum belongs to the study's optimizer, so it is dropped along with it.
    nesterov = said.nesterov and optimizer == said.optimizer
    return replace(said, scheme=scheme, optimizer=optimizer, nesterov=nesterov, **changes)


def _groups(
    network: nn.Module, example: torch.Tensor, *, needed: bool, useful: bool
) -> tuple[Sequence[ChannelGroup], str | None]:
    """Find the channel groups, or return none and the reason. Raise if the groups are needed."""
    if not needed and not useful:
        return (), None
    try:
        return find_groups(network, example), None
    except PruningError as error:
        if needed:
            raise
        return (), str(error)
