"""Loads the data of a study as disjoint parts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, overload

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
from dse.data.parts import DataParts, Images, LazyImages, Part
from dse.data.sources import Pool, Source, digits
from dse.data.split import Positions, stratified
from dse.data.summary import DataSummary, part_summary
from dse.data.survey import Tell, memory_file, survey
from dse.errors import DataError, UnreadableImageError

_READ_AT_ONCE = 256  # images; limits the memory of the copy while they are combined


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """The assignment of images to parts.

    Attributes:
        labels: the labels to use.
        train: positions of the training images.
        selection: positions of the selection images, in the same pool.
        validation: positions of the validation images in their pool.
        validation_pool: pool of the validation images.
        targets: label number of every image of the training pool; -1 for unused images.
        validation_targets: the same for the validation pool.
    """

    labels: tuple[str, ...]
    train: Positions
    selection: Positions
    validation: Positions
    validation_pool: Pool
    targets: Positions
    validation_targets: Positions


def load_data(config: DataConfig, *, seed: int, tell: Tell | None = None) -> DataParts:
    """Load a study's data, reading every image, so that broken ones are found before training.

    Args:
        config: the study's `[data]`.
        seed: seed of the splits.
        tell: called with the number of images read and their total.

    Returns:
        Disjoint parts for training, selection and validation; the same on every call. Images are
        held in memory as bytes if they fit `in_memory_limit`, otherwise read again for each batch,
        with the same result. Training images with random transforms of their own are always read
        again.

    Raises:
        DataError: if the data are missing, broken or too few; the message names place and fix.
    """
    source = _source(config, labels=config.labels)
    plan = _planned(config, source, labels=config.labels or source.labels, seed=seed)
    return _parts(config, source, plan, tell)


def source_parts(config: DataConfig, pretrain: PretrainConfig, *, seed: int) -> DataParts:
    """Load the part of a study's data that its network is pretrained on.

    Args:
        config: the study's `[data]`.
        pretrain: the study's `[network.pretrain]`; without labels, all that `config` doesn't use.
        seed: seed of the splits.

    Returns:
        Parts like those of `load_data`, with the source labels.

    Raises:
        DataError: see `load_data`; or if fewer than two labels are left.
    """
    source = _source(config, labels=pretrain.labels)
    labels = _source_labels(config, source, pretrain)
    return _parts(config, source, _planned(config, source, labels=labels, seed=seed), None)


def check_data(config: DataConfig, *, pretrain: PretrainConfig | None = None) -> DataSummary:
    """Check everything about a study's data that needs no download and no decoding.

    Args:
        config: the study's `[data]`.
        pretrain: the study's `[network.pretrain]`, whose labels are checked too.

    Raises:
        DataError: see `load_data`, for errors that can be found this way.
    """
    if config.name not in ("digits", "folder") and config.torchvision_name is None:
        load_factory(config.name, config.root)  # not called, because that may take long
        return _unseen(config)
    source = _source(config, labels=config.labels, download=False)
    if source is None:
        return _unseen(config)
    plan = _planned(config, source, labels=config.labels or source.labels, seed=0)
    _check_source_labels(config, source, pretrain)
    return _summary(config, source, plan)


def survey_data(
    config: DataConfig,
    *,
    seed: int,
    pretrain: PretrainConfig | None = None,
    tell: Tell | None = None,
) -> DataSummary:
    """Read every image of a study's data once, as a run would, keeping and downloading nothing.

    Args:
        config: the study's `[data]`; a factory is called.
        seed: seed of the splits.
        pretrain: the study's `[network.pretrain]`, whose labels are checked too.
        tell: called with the number of images read and their total.

    Raises:
        DataError: see `load_data`.
    """
    source = _source(config, labels=config.labels, download=False)
    if source is None:
        return _unseen(config)
    plan = _planned(config, source, labels=config.labels or source.labels, seed=seed)
    _check_source_labels(config, source, pretrain)
    source = _looked_at(config, source, plan, everything=True, tell=tell)
    for images, positions in _used(source, plan):
        if not isinstance(images, FileImages):
            _read_through(LazyImages(images, torch.from_numpy(positions)), None)
    return _summary(config, source, plan, checked=True)


def _unseen(config: DataConfig) -> DataSummary:
    """Summarise data that aren't opened."""
    extent = EXTENTS.get(config.torchvision_name or "")
    return DataSummary(
        name=config.name,
        place=_place(config),
        labels=config.labels,
        classes=len(config.labels) if config.labels else extent.classes if extent else None,
        to_download=config.torchvision_name is not None,
    )


def _place(config: DataConfig) -> str:
    return str(config.root or (default_root() if config.torchvision_name else ""))


@overload
def _source(config: DataConfig, *, labels: tuple[str, ...] | None) -> Source: ...


@overload
def _source(
    config: DataConfig, *, labels: tuple[str, ...] | None, download: Literal[False]
) -> Source | None: ...


def _source(
    config: DataConfig, *, labels: tuple[str, ...] | None, download: bool = True
) -> Source | None:
    """Open the data; return None if they are missing and may not be downloaded."""
    if config.name == "digits":
        return digits(config.image_size)
    if config.name == "folder":
        return image_folder(config.root or Path(), image_size=config.image_size, labels=labels)
    if config.torchvision_name is None:
        return factory_source(config.name, config.root, image_size=config.image_size)
    return torchvision_source(
        config.torchvision_name,
        config.root or default_root(),
        image_size=config.image_size,
        download=download,
    )


def _planned(config: DataConfig, source: Source, *, labels: tuple[str, ...], seed: int) -> _Plan:
    """Choose labels and split positions, without reading an image."""
    _check_labels(config, source, labels)
    targets = _targets(source.train, source, labels)
    if source.validation is None:
        pool, validation_targets = source.train, targets
        training, validation = stratified(
            targets,
            labels,
            share=config.validation_share,
            seed=seed,
            purpose="validation",
            keys=source.train.keys,
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
        left,
        labels,
        share=config.selection_share,
        seed=seed,
        purpose="selection",
        keys=source.train.keys,
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


def _used(source: Source, plan: _Plan) -> list[tuple[Images, Positions]]:
    """Return the images that a plan uses, by pool."""
    own = [plan.train, plan.selection]
    if source.validation is None:
        return [(source.train.images, np.sort(np.concatenate([*own, plan.validation])))]
    return [
        (source.train.images, np.sort(np.concatenate(own))),
        (source.validation.images, plan.validation),
    ]


def _looked_at(
    config: DataConfig, source: Source, plan: _Plan, *, everything: bool, tell: Tell | None
) -> Source:
    """Find the scale of image files; with `everything`, also check that each can be read."""
    paths = [
        images.paths[position]
        for images, positions in _used(source, plan)
        if isinstance(images, FileImages)
        for position in positions.tolist()
    ]
    if not paths:
        return source
    known = memory_file(config.root or Path())
    scale = survey(paths, everything=everything, known=known, tell=tell).scale
    pools = [
        pool and replace(pool, images=replace(pool.images, scale=scale))
        if pool and isinstance(pool.images, FileImages)
        else pool
        for pool in (source.train, source.validation)
    ]
    return replace(
        source,
        train=pools[0] or source.train,
        validation=pools[1],
        pixel_values=scale.text,
        notes=(*source.notes, *scale.notes),
    )


def _parts(config: DataConfig, source: Source, plan: _Plan, tell: Tell | None) -> DataParts:
    images = len(plan.train) + len(plan.selection) + len(plan.validation)
    held = 3 * config.image_size**2 * images <= config.in_memory_limit
    source = _looked_at(config, source, plan, everything=not held, tell=None if held else tell)
    pools = [
        ("train", source.train.images, plan.targets, plan.train),
        ("selection", source.train.plain or source.train.images, plan.targets, plan.selection),
        (
            "validation",
            (source.validation or source.train).images,
            plan.validation_targets,
            plan.validation,
        ),
    ]
    done = 0

    def told(read: int) -> None:
        nonlocal done
        done += read
        if tell is not None:
            tell(done, images)

    def part(name: str, pool: Images, targets: Positions, positions: Positions) -> Part:
        lazy = LazyImages(pool, torch.from_numpy(positions))
        keep = held and not (name == "train" and lazy.varies)
        if not keep and not isinstance(pool, FileImages):
            _read_through(lazy, told)
        return Part(
            name=name,
            images=_in_memory(lazy, config.image_size, told) if keep else lazy,
            labels=torch.from_numpy(targets[positions]),
            mean=config.mean,
            std=config.std,
            augment=config.augment if name == "train" else "none",
        )

    try:
        train, selection, validation = (part(*one) for one in pools)
    except UnreadableImageError:
        _looked_at(config, source, plan, everything=True, tell=None)  # raises with all names
        raise
    return DataParts(
        train=train,
        selection=selection,
        validation=validation,
        labels=plan.labels,
        image_size=config.image_size,
        mean=config.mean,
        std=config.std,
        files=_files(source),
        summary=_summary(config, source, plan, checked=True),
    )


def _summary(
    config: DataConfig, source: Source, plan: _Plan, *, checked: bool = False
) -> DataSummary:
    split = f"split off {source.train_origin}"
    parts = (
        ("train", source.train_origin, plan.targets[plan.train]),
        ("selection", split, plan.targets[plan.selection]),
        (
            "validation",
            split if source.validation is None else source.validation_origin,
            plan.validation_targets[plan.validation],
        ),
    )
    return DataSummary(
        name=config.name,
        place=_place(config),
        labels=plan.labels,
        classes=len(plan.labels),
        parts=tuple(
            part_summary(name, origin, targets.tolist(), classes=len(plan.labels))
            for name, origin, targets in parts
        ),
        passed_over=source.passed_over,
        pixel_values=source.pixel_values,
        augmentation=_augmentation(config, source),
        notes=source.notes,
        checked=checked,
    )


def _augmentation(config: DataConfig, source: Source) -> str:
    own = (
        "" if config.augment == "none" else f"data.augment = {config.augment!r} on training images"
    )
    return "; ".join(filter(None, (own, source.augmentation))) or "none"


def _files(source: Source) -> Mapping[str, int] | None:
    """Return the size of each image file by part, label and name, independent of the location."""
    sizes: dict[str, int] = {}
    for name, pool in (("train", source.train), ("validation", source.validation)):
        if pool is not None and isinstance(pool.images, FileImages):
            labels = [source.labels[number] for number in pool.targets.tolist()]
            for label, key, size in zip(labels, pool.keys, pool.images.sizes(), strict=True):
                sizes[f"{name}/{label}/{key}"] = size
    return sizes or None


def _in_memory(images: LazyImages, image_size: int, tell: Callable[[int], None]) -> Tensor:
    held = torch.empty((len(images), 3, image_size, image_size), dtype=torch.uint8)
    for positions in torch.split(torch.arange(len(images)), _READ_AT_ONCE):
        held[positions] = images.fetch(positions)
        tell(len(positions))
    return held


def _read_through(images: LazyImages, tell: Callable[[int], None] | None) -> None:
    """Read every image without keeping any."""
    for positions in torch.split(torch.arange(len(images)), _READ_AT_ONCE):
        images.fetch(positions)
        if tell is not None:
            tell(len(positions))


def _check_source_labels(
    config: DataConfig, source: Source, pretrain: PretrainConfig | None
) -> None:
    """Check the labels that a network is pretrained on."""
    if pretrain is None:
        return
    whole = source
    if config.labels is not None and config.name == "folder":
        whole = _source(config, labels=pretrain.labels)
    labels = _source_labels(config, whole, pretrain)
    _planned(config, whole, labels=labels, seed=0)


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
    """Renumber a pool's targets by the chosen labels: (n,), -1 for images of other labels."""
    new = np.array([labels.index(one) if one in labels else -1 for one in source.labels])
    return new[pool.targets]
