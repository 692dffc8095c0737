"""Resolve a target named on the command line: a bare network, or a study."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dse.candidate import Candidate, kept_channels
from dse.config import SpaceConfig, Study, load_study, resolve_space
from dse.data import check_data
from dse.errors import CandidateError, ConfigError
from dse.pruning.groups import ChannelGroup
from dse.shipped import shipped
from dse.step.settings import StepSettings
from dse.textfiles import exists, read_text


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The network and settings of a target: a bare network with defaults, or those of a study."""

    network: str
    options: dict[str, Any] = field(default_factory=dict)
    search_path: Path | None = None
    classes: int = 1000
    batch_size: int = 8
    image_size: int = 224
    settings: StepSettings = field(default_factory=StepSettings)
    space: SpaceConfig | None = None
    device: str = "cpu"
    threads: int = 0


def read_candidate(path: Path | None) -> Candidate:
    """Read a candidate from a JSON file. Without a file, return the unpruned candidate.

    Raises:
        CandidateError: If the file can't be read, or does not hold a candidate.
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


def asked(target: str, *, classes: int | None, changes: Sequence[str] = ()) -> Asked:
    """Resolve a target: a network, a study file or a shipped study.

    Args:
        target: Name of the network or study, or path of the study file.
        classes: Number of outputs. Defaults to the number of the study's labels, or to 1,000 for a
            bare network.
        changes: Overrides of the study's keys, such as ``data.root=images``.

    Raises:
        DseError: If the target is neither a network nor a study, or the study is invalid.
    """
    if ":" in target and not exists(target):
        if changes:
            raise ConfigError(f"--set {changes[0]} changes a study's key, and {target} is none")
        return Asked(network=target, classes=classes or 1000)
    if not target.endswith(".toml") and not exists(target):
        _check_shipped(target)
    study = load_study(target, overrides=changes)
    return Asked(
        network=study.network.name,
        options=dict(study.network.options),
        search_path=study.source_dir,
        classes=classes or _classes(study),
        batch_size=study.training.batch_size,
        image_size=study.data.image_size,
        settings=StepSettings.of(study.training),
        space=study.space,
        device=study.training.device,
        threads=study.training.threads,
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


def at_ratio(
    ratio: float, groups: Sequence[ChannelGroup], space: SpaceConfig | None
) -> tuple[int, ...]:
    """Prune every free group by a ratio, and the others as the study's space fixes them."""
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
