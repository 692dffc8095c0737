"""From `[data]` to disjoint parts."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dse.config import DataConfig, PretrainConfig
from dse.data.datasets import (
    EXTENTS,
    default_root,
    factory_source,
    load_factory,
    torchvision_source,
)
from dse.data.folder import image_folder
from dse.data.images import FileImages
from dse.data.parts import DataParts, LazyImages, Part
from dse.data.sources import Pool, Source, digits
from dse.data.split import Positions, stratified
from dse.data.summary import DataSummary, part_summary
from dse.errors import DataError

_READ_AT_ONCE = 256  # images; bounds what is held twice while they are put together


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Which images go where.

    Attributes:
        targets: For every image of the source's training pool, its position among the labels.
        validation_targets: Likewise for the pool that validation images come from.
    """

    labels: tuple[str, ...]
    train: Positions
    selection: Positions
    validation: Positions
    validation_pool: Pool
    targets: Positions
    validation_targets: Positions


def load_data(config: DataConfig, *, seed: int) -> DataParts:
    """Read a study's data.

    Args:
        config: The study's `[data]`.
        seed: Of the splits.

    Returns:
        Disjoint parts to train, select and validate; the same every time. They are held in memory
        as bytes where they fit `in_memory_limit`, else read anew for each batch, to the same end.

    Raises:
        DataError: The data are missing, broken or too few; one line names the place and the mend.
    """
    source = _source(config)
    plan = _planned(config, source, labels=config.labels or source.labels, seed=seed)
    return _parts(config, source, plan)


def source_parts(config: DataConfig, pretrain: PretrainConfig, *, seed: int) -> DataParts:
    """Read the part of a study's data that its network is pretrained on.

    Args:
        config: The study's `[data]`.
        pretrain: The study's `[network.pretrain]`; without labels, all that `config` leaves.
        seed: Of the splits.

    Returns:
        Parts like those of `load_data`, of the source labels.

    Raises:
        DataError: As for `load_data`, or fewer than two labels are left.
    """
    source = _source(config)
    labels = _source_labels(config, source, pretrain)
    return _parts(config, source, _planned(config, source, labels=labels, seed=seed))


def check_data(config: DataConfig, *, pretrain: PretrainConfig | None = None) -> DataSummary:
    """Check all that can be known of a study's data without downloading or decoding.

    Args:
        config: The study's `[data]`.
        pretrain: The study's `[network.pretrain]`, whose labels are checked too.

    Raises:
        DataError: As for `load_data`, as far as it shows already.
    """
    source = None
    place = str(config.root or "")
    if config.name == "digits":
        source = digits(config.image_size)
    elif config.torchvision_name is not None:
        place = str(config.root or default_root())
        source = _torchvision(config, download=False)
    elif config.name == "folder":
        source = _source(config)
    else:
        load_factory(config.name, config.root)  # not called: that may take long
    if source is None:
        extent = EXTENTS.get(config.torchvision_name or "")
        return DataSummary(
            name=config.name,
            place=place,
            labels=config.labels,
            classes=len(config.labels) if config.labels else extent.classes if extent else None,
            to_download=config.torchvision_name is not None,
        )
    plan = _planned(config, source, labels=config.labels or source.labels, seed=0)
    if pretrain is not None:
        labels = _source_labels(config, source, pretrain)
        _planned(config, source, labels=labels, seed=0)
    return _summary(config, source, plan)


def _source(config: DataConfig) -> Source:
    """Open the data, downloading them where they are missing."""
    if config.name == "digits":
        return digits(config.image_size)
    if config.name == "folder":
        return image_folder(config.root or Path(), image_size=config.image_size)
    opened = _torchvision(config, download=True) if config.torchvision_name else None
    return opened or factory_source(config.name, config.root, image_size=config.image_size)


def _torchvision(config: DataConfig, *, download: bool) -> Source | None:
    return torchvision_source(
        config.torchvision_name or "",
        config.root or default_root(),
        image_size=config.image_size,
        download=download,
    )


def _planned(config: DataConfig, source: Source, *, labels: tuple[str, ...], seed: int) -> _Plan:
    """Choose labels and split, without reading an image."""
    _check_labels(config, source, labels)
    targets = _targets(source.train, source, labels)
    if source.validation is None:
        pool, validation_targets = source.train, targets
        training, validation = stratified(
            targets, labels, share=config.validation_share, seed=seed, purpose="validation"
        )
    else:
        pool, validation_targets = (
            source.validation,
            _targets(source.validation, source, labels),
        )
        training, validation = np.flatnonzero(targets >= 0), np.flatnonzero(validation_targets >= 0)
        for number, label in enumerate(labels):
            if not (validation_targets == number).any():
                raise DataError(f"data {config.name!r}: no validation image has label {label!r}")
    left = np.full_like(targets, -1)
    left[training] = targets[training]
    train, selection = stratified(
        left, labels, share=config.selection_share, seed=seed, purpose="selection"
    )
    return _Plan(
        labels=labels,
        train=train,
        selection=selection,
        validation=validation,
        validation_pool=pool,
        targets=targets,
        validation_targets=validation_targets,
    )


def _parts(config: DataConfig, source: Source, plan: _Plan) -> DataParts:
    images = len(plan.train) + len(plan.selection) + len(plan.validation)
    held = 3 * config.image_size**2 * images <= config.in_memory_limit

    def part(name: str, pool: Pool, targets: Positions, positions: Positions) -> Part:
        lazy = LazyImages(pool.images, torch.from_numpy(positions))
        return Part(
            name=name,
            images=_in_memory(lazy, config.image_size) if held else lazy,
            labels=torch.from_numpy(targets[positions]),
            mean=config.mean,
            std=config.std,
            augment=config.augment if name == "train" else "none",
        )

    return DataParts(
        train=part("train", source.train, plan.targets, plan.train),
        selection=part("selection", source.train, plan.targets, plan.selection),
        validation=part(
            "validation", plan.validation_pool, plan.validation_targets, plan.validation
        ),
        labels=plan.labels,
        image_size=config.image_size,
        mean=config.mean,
        std=config.std,
        files=_files(source),
        summary=_summary(config, source, plan),
    )


def _summary(config: DataConfig, source: Source, plan: _Plan) -> DataSummary:
    own = source.validation is not None
    parts = (
        ("train", source.train_origin, plan.targets[plan.train]),
        ("selection", "split off the training images", plan.targets[plan.selection]),
        (
            "validation",
            source.validation_origin if own else "split off the training images",
            plan.validation_targets[plan.validation],
        ),
    )
    place = config.root or (default_root() if config.torchvision_name else "")
    return DataSummary(
        name=config.name,
        place=str(place),
        labels=plan.labels,
        classes=len(plan.labels),
        parts=tuple(
            part_summary(name, origin, targets.tolist(), classes=len(plan.labels))
            for name, origin, targets in parts
        ),
    )


def _files(source: Source) -> str | None:
    pools = [source.train, *([] if source.validation is None else [source.validation])]
    digests = [pool.images.digest() for pool in pools if isinstance(pool.images, FileImages)]
    return "-".join(digests) or None


def _in_memory(images: LazyImages, image_size: int) -> Tensor:
    held = torch.empty((len(images), 3, image_size, image_size), dtype=torch.uint8)
    for positions in torch.split(torch.arange(len(images)), _READ_AT_ONCE):
        held[positions] = images.fetch(positions)
    return held


def _source_labels(config: DataConfig, source: Source, pretrain: PretrainConfig) -> tuple[str, ...]:
    rest = tuple(label for label in source.labels if label not in (config.labels or ()))
    labels = pretrain.labels or rest
    if len(labels) < 2:  # noqa: PLR2004 -- nothing to tell apart
        raise DataError(
            f"data {config.name!r}: data.labels leaves {len(labels)} labels to pretrain on, "
            "at least 2 are needed: name fewer target labels"
        )
    return labels


def _check_labels(config: DataConfig, source: Source, labels: tuple[str, ...]) -> None:
    if len(labels) < 2:  # noqa: PLR2004 -- nothing to tell apart
        raise DataError(f"data {config.name!r} has {len(labels)} labels, at least 2 are needed")
    for label in labels:
        if label not in source.labels:
            near = get_close_matches(label, source.labels, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {_some(source.labels)}"
            raise DataError(f"data {config.name!r} has no label {label!r}: {hint}")


def _some(labels: tuple[str, ...], most: int = 12) -> str:
    return ", ".join(labels[:most]) + (f" and {len(labels) - most} more" if labels[most:] else "")


def _targets(pool: Pool, source: Source, labels: tuple[str, ...]) -> Positions:
    """Renumber a pool's targets by the chosen labels: (n,), -1 for images of any other."""
    new = np.array([labels.index(one) if one in labels else -1 for one in source.labels])
    return new[pool.targets]
