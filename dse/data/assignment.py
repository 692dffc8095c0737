"""Assigns images to the parts of a study: by label, and by the splits' seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from dse.config import DataConfig, PretrainConfig
from dse.data.parts import Images
from dse.data.sources import Pool, Source, Values
from dse.data.split import Positions, plainly_split, stratified
from dse.data.summary import counted
from dse.errors import DataError
from dse.names import nearest


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The assignment of images to parts.

    Attributes:
        labels: the labels to use.
        train: positions of the training images.
        selection: positions of the selection images, in the same pool.
        validation: positions of the validation images in their pool.
        targets: label number of every image of the training pool; -1 for unused images.
        validation_targets: the same for the validation pool.
        values: values of every image of the training pool, (n, labels); None for other targets.
        validation_values: the same for the validation pool.
    """

    labels: tuple[str, ...]
    train: Positions
    selection: Positions
    validation: Positions
    targets: Positions
    validation_targets: Positions
    values: Values | None = None
    validation_values: Values | None = None

    def used(self, source: Source) -> list[tuple[Images, Positions]]:
        """Return the images of the source that are used, by pool, with ascending positions."""
        own = [self.train, self.selection]
        if source.validation is None:
            return [(source.train.images, np.sort(np.concatenate([*own, self.validation])))]
        return [
            (source.train.images, np.sort(np.concatenate(own))),
            (source.validation.images, self.validation),
        ]


def assign(config: DataConfig, source: Source, *, labels: tuple[str, ...], seed: int) -> Assignment:
    """Choose images by their labels and split them into parts, without reading any.

    Args:
        config: the study's `[data]`.
        source: the opened data.
        labels: the labels to use, in the order of the network's outputs.
        seed: seed of the splits.

    Raises:
        DataError: if a label doesn't exist, or has too few images.
    """
    if source.form != "class":
        return _assign_all(config, source, labels=labels, seed=seed)
    _check_labels(config, source, labels)
    targets = _targets(source.train, source, labels)
    split = partial(stratified, labels=labels, seed=seed, keys=source.train.keys)
    if source.validation is None:
        validation_targets = targets
        training, validation = split(targets, share=config.validation_share, purpose="validation")
    else:
        validation_targets = _targets(source.validation, source, labels)
        training, validation = np.flatnonzero(targets >= 0), np.flatnonzero(validation_targets >= 0)
        for number, label in enumerate(labels):
            if not (validation_targets == number).any():
                raise DataError(f"data {config.name!r}: no validation image has label {label!r}")
    left = np.full_like(targets, -1)
    left[training] = targets[training]
    train, selection = split(left, share=config.selection_share, purpose="selection")
    return Assignment(
        labels=labels,
        train=train,
        selection=selection,
        validation=validation,
        targets=targets,
        validation_targets=validation_targets,
    )


def _assign_all(
    config: DataConfig, source: Source, *, labels: tuple[str, ...], seed: int
) -> Assignment:
    """Split all images into parts; those of several labels by the rarest that each has."""
    _check_columns(config, source, labels)
    columns = [source.labels.index(label) for label in labels]

    def chosen(pool: Pool) -> Values | None:
        return None if pool.values is None else pool.values[:, columns]

    values = chosen(source.train)
    strata = _strata(values) if source.form == "labels" and values is not None else None
    split = partial(
        plainly_split,
        strata=strata,
        count=len(source.train.images),
        seed=seed,
        keys=source.train.keys,
    )
    everything = np.arange(len(source.train.images))
    if source.validation is None:
        training, validation = split(
            everything, share=config.validation_share, purpose="validation"
        )
        validation_values = values
    else:
        training, validation = everything, np.arange(len(source.validation.images))
        validation_values = chosen(source.validation)
    train, selection = split(training, share=config.selection_share, purpose="selection")
    if values is not None and validation_values is not None:
        _check_values(
            config,
            labels,
            {
                "train": values[train],
                "selection": values[selection],
                "validation": validation_values[validation],
            },
            positives=source.form == "labels",
        )
    pools = (source.train, source.validation or source.train)
    return Assignment(
        labels=labels,
        train=train,
        selection=selection,
        validation=validation,
        targets=pools[0].targets,
        validation_targets=pools[1].targets,
        values=values,
        validation_values=validation_values,
    )


def _check_values(
    config: DataConfig,
    labels: tuple[str, ...],
    parts: Mapping[str, Values],
    *,
    positives: bool,
) -> None:
    """Check that there is something to learn and to score in each column.

    Raises:
        DataError: if a column is the same in all training images, or a label has no image.
    """
    for number, label in enumerate(labels):
        own = parts["train"][:, number]
        if own.min() == own.max():
            raise DataError(
                f"data {config.name!r}: {label!r} is {own[0]:g} for all {len(own)} training "
                "images, so nothing can be learned: list the other columns in data.labels"
            )
        for name, values in parts.items():
            if positives and not values[:, number].any():
                raise DataError(
                    f"data {config.name!r}: no {name} image has the label {label!r}: give more, or "
                    "list the labels to use in data.labels"
                )


def _strata(values: Values) -> Positions:
    """Return the rarest label that each image has, (n,); -1 for images without any."""
    positive = values > 0
    counts = np.where(positive, positive.sum(axis=0), len(values) + 1)
    return np.where(positive.any(axis=1), counts.argmin(axis=1), -1)


def source_labels(config: DataConfig, source: Source, pretrain: PretrainConfig) -> tuple[str, ...]:
    """Return the labels to pretrain on: those that are named, or all that the study doesn't use.

    Raises:
        DataError: if there are fewer than two labels.
    """
    rest = tuple(label for label in source.labels if label not in (config.labels or ()))
    labels = pretrain.labels or rest
    if len(labels) < 2:  # noqa: PLR2004 -- nothing to tell apart
        raise DataError(
            f"data {config.name!r}: data.labels leaves {counted(len(labels), 'label')} to pretrain "
            "on, at least 2 are needed: name fewer target labels"
        )
    return labels


def _check_labels(config: DataConfig, source: Source, labels: tuple[str, ...]) -> None:
    if len(labels) < 2:  # noqa: PLR2004 -- nothing to tell apart
        raise DataError(
            f"data {config.name!r} has {counted(len(labels), 'label')}, at least 2 are needed"
        )
    _check_columns(config, source, labels)


def _check_columns(config: DataConfig, source: Source, labels: tuple[str, ...]) -> None:
    for label in labels:
        if label not in source.labels:
            near = nearest(label, source.labels)
            hint = f"did you mean {near!r}?" if near else f"it has {_some(source.labels)}"
            raise DataError(f"data {config.name!r} has no label {label!r}: {hint}")


def _some(labels: tuple[str, ...], most: int = 12) -> str:
    return ", ".join(labels[:most]) + (f" and {len(labels) - most} more" if labels[most:] else "")


def _targets(pool: Pool, source: Source, labels: tuple[str, ...]) -> Positions:
    """Renumber a pool's targets by the chosen labels: (n,), -1 for images of other labels."""
    new = np.array([labels.index(one) if one in labels else -1 for one in source.labels])
    return new[pool.targets]
