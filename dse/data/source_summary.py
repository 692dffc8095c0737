"""Summarises a study's data: from an opened source, or without one."""

from collections.abc import Mapping
from typing import Any

from dse.config import DataConfig
from dse.data.assignment import Assignment
from dse.data.opening import place_of
from dse.data.sources import Source
from dse.data.split import Positions
from dse.data.summary import DataSummary, PartSummary, part_summary, values_summary
from dse.data.torchvision_sets import CLASSES


def unopened_summary(config: DataConfig, task: str = "classification") -> DataSummary:
    """Summarise data that aren't opened."""
    known = CLASSES.get(config.torchvision_name or "")
    return DataSummary(
        name=config.name,
        place=place_of(config),
        task=task,
        labels=config.labels,
        classes=len(config.labels) if config.labels else known,
        to_download=config.torchvision_name is not None,
    )


def source_summary(
    config: DataConfig,
    source: Source,
    plan: Assignment,
    *,
    checked: bool = False,
    task: str = "classification",
) -> DataSummary:
    """Summarise data whose images have been assigned to parts.

    Args:
        config: the study's `[data]`.
        source: the opened data.
        plan: the assignment of its images.
        checked: whether every image was read.
        task: what the labels are for.
    """
    split = "split off the training images"
    last = split if source.validation is None else source.validation_origin
    parts = (
        ("train", source.train_origin, plan.train),
        ("selection", split, plan.selection),
        ("validation", last, plan.validation),
    )

    def summed(name: str, origin: str, positions: Positions) -> PartSummary:
        if task == "classification":
            targets = plan.validation_targets if name == "validation" else plan.targets
            return part_summary(name, origin, targets[positions].tolist(), classes=len(plan.labels))
        values = plan.validation_values if name == "validation" else plan.values
        if values is None:
            return PartSummary(name=name, origin=origin, per_label=(), count=len(positions))
        return values_summary(name, origin, values[positions], positives=task == "multi-label")

    return DataSummary(
        name=config.name,
        place=place_of(config),
        task=task,
        labels=plan.labels,
        classes=len(plan.labels),
        parts=tuple(summed(*one) for one in parts),
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
    named = ", ".join(map(_transform_text, config.transforms or ()))
    named = named and f"{named} of torchvision on training images"
    return "; ".join(filter(None, (own, named, source.augmentation))) or "none"


def _transform_text(spec: Mapping[str, Any]) -> str:
    """Return a transform as text, such as "RandomRotation(degrees=10)"."""
    options = [f"{key}={value}" for key, value in spec.items() if key not in ("name", "transforms")]
    inner = list(map(_transform_text, spec.get("transforms", ())))
    return f"{spec['name']}({', '.join([*inner, *options])})"
