"""Summarises a study's data: from an opened source, or without one."""

from dse.config import DataConfig
from dse.data.assignment import Assignment
from dse.data.opening import place_of
from dse.data.sources import Source
from dse.data.summary import DataSummary, part_summary
from dse.data.torchvision_sets import CLASSES


def unopened_summary(config: DataConfig) -> DataSummary:
    """Summarise data that aren't opened."""
    known = CLASSES.get(config.torchvision_name or "")
    return DataSummary(
        name=config.name,
        place=place_of(config),
        labels=config.labels,
        classes=len(config.labels) if config.labels else known,
        to_download=config.torchvision_name is not None,
    )


def source_summary(
    config: DataConfig, source: Source, plan: Assignment, *, checked: bool = False
) -> DataSummary:
    """Summarise data whose images have been assigned to parts.

    Args:
        config: the study's `[data]`.
        source: the opened data.
        plan: the assignment of its images.
        checked: whether every image was read.
    """
    split = "split off the training images"
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
        place=place_of(config),
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
