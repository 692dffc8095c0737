"""From `[data]` to disjoint parts."""

from difflib import get_close_matches

import numpy as np
import torch

from dse.config import DataConfig, PretrainConfig
from dse.data.parts import DataParts, LazyImages, Part
from dse.data.sources import Pool, Source, digits
from dse.data.split import Positions, stratified
from dse.errors import DataError


def load_data(config: DataConfig, *, seed: int) -> DataParts:
    """Read a study's data.

    Args:
        config: The study's `[data]`.
        seed: Of the splits.

    Returns:
        Disjoint parts to train, select and validate; the same every time.

    Raises:
        DataError: The data are missing, broken or too few; one line names the place and the mend.
    """
    source = _source(config)
    return _parts(config, source, labels=config.labels or source.labels, seed=seed)


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
    rest = tuple(label for label in source.labels if label not in (config.labels or ()))
    labels = pretrain.labels or rest
    if len(labels) < 2:  # noqa: PLR2004 -- nothing to tell apart
        raise DataError(
            f"data {config.name!r}: data.labels leaves {len(labels)} labels to pretrain on, "
            "at least 2 are needed: name fewer target labels"
        )
    return _parts(config, source, labels=labels, seed=seed)


def _source(config: DataConfig) -> Source:
    if config.name == "digits":
        return digits(config.image_size)
    raise DataError(f"data.name = {config.name!r}: only digits can be read so far")


def _parts(config: DataConfig, source: Source, *, labels: tuple[str, ...], seed: int) -> DataParts:
    _check_labels(config, source, labels)
    every = _targets(source.train, source, labels)
    if source.validation is None:
        training, validation = stratified(
            every, labels, share=config.validation_share, seed=seed, purpose="validation"
        )
        pool, validation_targets = source.train, every
    else:
        pool = source.validation
        validation_targets = _targets(pool, source, labels)
        training = np.flatnonzero(every >= 0)
        validation = np.flatnonzero(validation_targets >= 0)
    left = np.full_like(every, -1)
    left[training] = every[training]
    train, selection = stratified(
        left, labels, share=config.selection_share, seed=seed, purpose="selection"
    )
    held = 3 * config.image_size**2 * (len(training) + len(validation)) <= config.in_memory_limit

    def part(name: str, pool: Pool, targets: Positions, positions: Positions) -> Part:
        images = LazyImages(pool.images, torch.from_numpy(positions))
        return Part(
            name=name,
            images=images.fetch(torch.arange(len(positions))) if held else images,
            labels=torch.from_numpy(targets[positions]),
            mean=config.mean,
            std=config.std,
            augment=config.augment if name == "train" else "none",
        )

    return DataParts(
        train=part("train", source.train, every, train),
        selection=part("selection", source.train, every, selection),
        validation=part("validation", pool, validation_targets, validation),
        labels=labels,
        image_size=config.image_size,
        mean=config.mean,
        std=config.std,
    )


def _check_labels(config: DataConfig, source: Source, labels: tuple[str, ...]) -> None:
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
