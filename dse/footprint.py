"""The memory of one training step of one network: predicted, and measured where that is wished."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dse.candidate import Candidate, kept_channels
from dse.config import SpaceConfig, Study, load_study, resolve_space
from dse.data import check_data
from dse.errors import CandidateError, ConfigError
from dse.finetune.settings import StepSettings
from dse.memory.explain import Explanation, explain, largest_batch
from dse.memory.model import MemoryModel
from dse.memory.timeline import Breakdown
from dse.networks import build_network, example_input
from dse.pruning.groups import ChannelGroup, find_groups
from dse.rebuild import measure_candidate
from dse.shipped import shipped

SCHEMA_VERSION = 1
CONVENTIONS = ("tensors", "allocator")


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What one training step holds at its peak.

    Attributes:
        breakdown: by category, and where it is.
        convention: what is counted.
        measured_peak_bytes: of a real step; None unless it was asked for.
        explanation: of the peak; None unless it was asked for.
        ram_bytes: for which the largest batch was asked; None unless it was.
        largest_batch_size: whose step fits that RAM, 0 where not even one image's does.
    """

    network: str
    scheme: str
    batch_size: int
    image_size: int
    optimizer: str
    convention: str
    breakdown: Breakdown
    measured_peak_bytes: int | None = None
    explanation: Explanation | None = None
    ram_bytes: int | None = None
    largest_batch_size: int | None = None

    @property
    def relative_error(self) -> float | None:
        """Predicted over measured, minus 1."""
        if self.measured_peak_bytes is None:
            return None
        return self.breakdown.peak_bytes / self.measured_peak_bytes - 1

    def to_json(self) -> dict[str, Any]:
        """Return the object that `dse memory --json` prints (docs/schemas/memory-1.json)."""
        answer = {
            "version": SCHEMA_VERSION,
            "network": self.network,
            "scheme": self.scheme,
            "batch_size": self.batch_size,
            "image_size": self.image_size,
            "optimizer": self.optimizer,
            "convention": self.convention,
            **self.breakdown.to_json(),
        }
        if self.measured_peak_bytes is not None:
            answer["measured_peak_bytes"] = self.measured_peak_bytes
            answer["relative_error"] = self.relative_error
        if self.explanation is not None:
            answer["explanation"] = self.explanation.to_json()
        if self.ram_bytes is not None:
            answer["ram_bytes"] = self.ram_bytes
            answer["largest_batch_size"] = self.largest_batch_size
        return answer


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a name stands for: a bare network with its defaults, or what a study says."""

    network: str
    options: dict[str, Any] = field(default_factory=dict)
    search_path: Path | None = None
    classes: int = 1000
    scheme: str = "full"
    batch_size: int = 8
    image_size: int = 224
    settings: StepSettings = field(default_factory=StepSettings)
    space: SpaceConfig | None = None
    device: str = "cpu"


def footprint(
    target: str,
    *,
    scheme: str | None = None,
    batch_size: int | None = None,
    image_size: int | None = None,
    optimizer: str | None = None,
    classes: int | None = None,
    ratio: float | None = None,
    candidate_file: Path | None = None,
    convention: str = "tensors",
    measure: bool = False,
    explained: bool = False,
    ram_bytes: int | None = None,
) -> Footprint:
    """Predict, and perhaps measure, the peak of one training step.

    Args:
        target: `torchvision:NAME`, `package.module:factory`, a study file or a shipped study.
        scheme: overrides the candidate's and the study's, as all that follow do.
        batch_size: images per step.
        image_size: side of the images.
        optimizer: see `dse.finetune.optimizers`.
        classes: outputs of the network.
        ratio: pruned share of every group that the study's space leaves free, from 0 to below 1.
        candidate_file: JSON of a candidate.
        convention: what is counted.
        measure: whether a real step is run too.
        explained: whether the peak is taken apart, by the convention `tensors`.
        ram_bytes: for which the largest fitting batch is sought, by the convention `tensors`.

    Raises:
        DseError: anything of this is wrong; one line says what.
    """
    if convention not in CONVENTIONS:
        raise ConfigError(f"--convention {convention!r} is not known: use {', '.join(CONVENTIONS)}")
    if ratio is not None and not (math.isfinite(ratio) and 0 <= ratio < 1):
        raise ConfigError(f"--ratio is {ratio}: it must lie between 0 and below 1, as in 0.5")
    candidate = _read_candidate(candidate_file)
    asked = _asked(target, classes=classes)
    scheme = scheme or candidate.scheme or asked.scheme
    batch_size = batch_size or candidate.batch_size or asked.batch_size
    image_size = image_size or candidate.image_size or asked.image_size
    settings = _with_optimizer(asked.settings, optimizer or candidate.optimizer)

    network = build_network(
        asked.network,
        classes=asked.classes,
        options=asked.options,
        search_path=asked.search_path,
    )
    # The step is traced with two images: batch normalisation can't train on a single 1x1 map.
    example = example_input(2, image_size)
    prunes = explained or ratio is not None or bool(candidate.channels)
    groups = find_groups(network, example) if prunes else ()
    kept = candidate.kept(groups) if ratio is None else _at_ratio(ratio, groups, asked.space)
    model = MemoryModel.compile(
        network,
        example,
        scheme=scheme,
        optimizer=settings.optimizer,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov,
        memory_format=settings.memory_format,
        groups=groups,
    )
    breakdown = (
        model.allocator_breakdown(kept, batch_size=batch_size)
        if convention == "allocator"
        else model.breakdown(kept, batch_size=batch_size)
    )
    measured = None
    if measure:
        measured = measure_candidate(
            asked.network,
            Candidate.from_kept(groups, kept),
            classes=asked.classes,
            options=asked.options,
            search_path=asked.search_path,
            scheme=scheme,
            batch_size=batch_size,
            image_size=image_size,
            settings=settings,
            device=asked.device,
        ).peak_bytes
    return Footprint(
        network=asked.network,
        scheme=scheme,
        batch_size=batch_size,
        image_size=image_size,
        optimizer=settings.optimizer,
        convention=convention,
        breakdown=breakdown,
        measured_peak_bytes=measured,
        explanation=explain(model, kept, batch_size=batch_size) if explained else None,
        ram_bytes=ram_bytes,
        largest_batch_size=(
            None if ram_bytes is None else largest_batch(model, kept, budget_bytes=ram_bytes)
        ),
    )


def _read_candidate(path: Path | None) -> Candidate:
    if path is None:
        return Candidate(channels={})
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CandidateError(f"--candidate {path} can't be read: {error}") from error
    return Candidate.from_json(text, source=str(path))


def _asked(target: str, *, classes: int | None) -> _Asked:
    if ":" in target and not Path(target).exists():
        return _Asked(network=target, classes=classes or 1000)
    if not target.endswith(".toml") and not Path(target).exists():
        _check_shipped(target)
    study = load_study(target)
    return _Asked(
        network=study.network.name,
        options=dict(study.network.options),
        search_path=study.source_dir,
        classes=classes or _classes(study),
        scheme=study.training.scheme,
        batch_size=study.training.batch_size,
        image_size=study.data.image_size,
        settings=StepSettings.of(study.training),
        space=study.space,
        device=study.training.device,
    )


def _check_shipped(name: str) -> None:
    studies = shipped("studies")
    if name not in studies:
        raise ConfigError(
            f"{name!r} is neither a network nor a study: write torchvision:{name} or "
            f"package.module:factory for a network, or name a study file or one of "
            f"{', '.join(studies)}"
        )


def _classes(study: Study) -> int:
    classes = check_data(study.data).classes
    if classes is None:
        raise ConfigError(
            f"data {study.data.name!r} tells its labels only once it is read: give --classes N, "
            "or name them in data.labels"
        )
    return classes


def _with_optimizer(settings: StepSettings, name: str | None) -> StepSettings:
    """Change the optimizer; Nesterov's form goes with the one it belongs to."""
    if name is None or name == settings.optimizer:
        return settings
    return replace(settings, optimizer=name, nesterov=False)


def _at_ratio(
    ratio: float, groups: Sequence[ChannelGroup], space: SpaceConfig | None
) -> tuple[int, ...]:
    """Prune every group that is free by a share, and the others as the space fixes them."""
    choices = resolve_space(space, groups) if space else (None,) * len(groups)
    kept = []
    for group, choice in zip(groups, choices, strict=True):
        if choice is not None and choice.fixed is not None:
            count = kept_channels(
                group.channels, choice.fixed, multiple=choice.multiple, floor=choice.floor
            )
        else:
            count = kept_channels(
                group.channels, ratio, multiple=group.multiple, floor=group.multiple
            )
        kept.append(count)
    return tuple(kept)
