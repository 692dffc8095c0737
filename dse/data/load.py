"""Loads the data of a study as disjoint parts."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from dse.config import DataConfig, PretrainConfig, TaskConfig
from dse.data.assignment import Assignment, assign, source_labels
from dse.data.datasets import data_factory
from dse.data.hold import counter, in_memory, read_through
from dse.data.images import FileImages
from dse.data.items import DatasetImages
from dse.data.masks import MaskedImages
from dse.data.named_transforms import transforms_of
from dse.data.opening import inputs_in, open_source, sample_bytes, stored_dtype
from dse.data.parts import DataParts, Images, LazyImages, Part
from dse.data.source_summary import source_summary, unopened_summary
from dse.data.sources import Pool, Source, Values
from dse.data.split import Positions
from dse.data.summary import DataSummary
from dse.data.survey import OnCount, memory_file, reading, survey
from dse.data.tensors import DatasetTensors
from dse.errors import UnreadableImageError
from dse.tasks.task import PLAIN, Evidence, TaskRequest, make_task

_PLAIN = TaskConfig()
OnMessage = Callable[[str], None]


def load_data(
    config: DataConfig,
    *,
    seed: int,
    task: TaskRequest = PLAIN,
    on_message: OnMessage | None = None,
) -> DataParts:
    """Load a study's data, reading every image, so that broken ones are found before training.

    Args:
        config: the study's `[data]`.
        seed: seed of the splits.
        task: what the study says of its task; a classification without it.
        on_message: called with lines about the progress of reading the images, and then with those
            of the summary.

    Returns:
        Disjoint parts for training, selection and validation; the same on every call. Images are
        held in memory as bytes if they fit `in_memory_limit`, otherwise read again for each batch,
        with the same result. Training images with random transforms of their own are always read
        again.

    Raises:
        DataError: if the data are missing, broken or too few; the message names place and fix.
    """
    source = open_source(config, labels=config.labels, task=task.config)
    plan = assign(config, source, labels=config.labels or source.labels, seed=seed)
    parts = _parts(config, source, plan, on_message and reading(on_message), task)
    _report(parts.summary, on_message)
    return parts


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
    source = open_source(config, labels=pretrain.labels)
    labels = source_labels(config, source, pretrain)
    return _parts(config, source, assign(config, source, labels=labels, seed=seed), None, PLAIN)


def check_data(
    config: DataConfig, *, pretrain: PretrainConfig | None = None, task: TaskConfig = _PLAIN
) -> DataSummary:
    """Check everything about a study's data that needs no download and no decoding.

    Args:
        config: the study's `[data]`.
        pretrain: the study's `[network.pretrain]`, whose labels are checked too.
        task: the study's `[task]`.

    Raises:
        DataError: see `load_data`, for errors that can be found this way.
    """
    if config.is_factory:
        data_factory(config.name, config.root)  # not called, because that may take long
        return unopened_summary(config, task.kind)
    source = open_source(config, labels=config.labels, task=task, download=False)
    if source is None:
        return unopened_summary(config, task.kind)
    plan = assign(config, source, labels=config.labels or source.labels, seed=0)
    _check_source_labels(config, source, pretrain)
    return source_summary(config, source, plan, task=task.kind)


def survey_data(
    config: DataConfig,
    *,
    seed: int,
    pretrain: PretrainConfig | None = None,
    task: TaskConfig = _PLAIN,
    on_message: OnMessage | None = None,
) -> DataSummary:
    """Read every image of a study's data once, as a run would, keeping and downloading nothing.

    Args:
        config: the study's `[data]`; a factory is called.
        seed: seed of the splits.
        pretrain: the study's `[network.pretrain]`, whose labels are checked too.
        task: the study's `[task]`.
        on_message: see `load_data`.

    Raises:
        DataError: see `load_data`.
    """
    on_count = on_message and reading(on_message)
    summary = _read_summary(config, seed=seed, pretrain=pretrain, task=task, on_count=on_count)
    _report(summary, on_message)
    return summary


def _report(summary: DataSummary | None, on_message: OnMessage | None) -> None:
    if summary is not None and on_message is not None:
        for line in summary.lines():
            on_message(line)


def _read_summary(
    config: DataConfig,
    *,
    seed: int,
    pretrain: PretrainConfig | None,
    task: TaskConfig,
    on_count: OnCount | None,
) -> DataSummary:
    source = open_source(config, labels=config.labels, task=task, download=False)
    if source is None:
        return unopened_summary(config, task.kind)
    plan = assign(config, source, labels=config.labels or source.labels, seed=seed)
    _check_source_labels(config, source, pretrain)
    inputs = inputs_in(source, config)
    transforms_of(config, inputs, task=task, dtype=stored_dtype(source.train.images, inputs))
    source = _surveyed(config, source, plan, everything=True, on_count=on_count)
    unread = [
        LazyImages(images, torch.from_numpy(positions))
        for images, positions in plan.used(source)
        if not isinstance(images, FileImages)
    ]
    advance = counter(on_count, total=sum(map(len, unread)))
    for images in unread:
        read_through(images, advance)
    return source_summary(config, source, plan, checked=True, task=task.kind)


def _surveyed(
    config: DataConfig,
    source: Source,
    plan: Assignment,
    *,
    everything: bool,
    on_count: OnCount | None,
) -> Source:
    """Find the scale of image files; with `everything`, also check that each can be read."""
    paths = [
        images.paths[position]
        for images, positions in plan.used(source)
        if isinstance(images, FileImages)
        for position in positions.tolist()
    ]
    if not paths:
        return source
    known = memory_file(config.root or Path())
    scale = survey(paths, everything=everything, known=known, on_count=on_count).scale

    def scaled(pool: Pool) -> Pool:
        if not isinstance(pool.images, FileImages):
            return pool
        return replace(pool, images=replace(pool.images, scale=scale))

    return replace(
        source,
        train=scaled(source.train),
        validation=source.validation and scaled(source.validation),
        pixel_values=scale.text,
        notes=(*source.notes, *scale.notes),
    )


def _parts(
    config: DataConfig,
    source: Source,
    plan: Assignment,
    on_count: OnCount | None,
    request: TaskRequest,
) -> DataParts:
    images = len(plan.train) + len(plan.selection) + len(plan.validation)
    inputs = inputs_in(source, config)
    transforms = transforms_of(
        config, inputs, task=request.config, dtype=stored_dtype(source.train.images, inputs)
    )
    held = sample_bytes(source.train.images, inputs) * images <= config.in_memory_limit
    source = _surveyed(
        config, source, plan, everything=not held, on_count=None if held else on_count
    )
    task = make_task(
        request,
        outputs=len(plan.labels),
        inputs=inputs,
        evidence=_evidence(source, plan, request.config),
    )
    last = (plan.validation_targets, plan.validation_values, plan.validation)
    first = (plan.targets, plan.values)
    pools = [
        ("train", source.train.images, *first, plan.train),
        ("selection", source.train.plain or source.train.images, *first, plan.selection),
        ("validation", (source.validation or source.train).images, *last),
    ]
    advance = counter(on_count, total=images)
    scaled = config.input is not None or not isinstance(source.train.images, DatasetTensors)
    mean, std = (config.mean, config.std) if scaled else (None, None)

    def part(
        name: str, pool: Images, targets: Positions, values: Values | None, positions: Positions
    ) -> Part:
        lazy = LazyImages(pool, torch.from_numpy(positions))
        keep = held and not (name == "train" and lazy.varies)
        if not keep and not isinstance(pool, FileImages):
            read_through(lazy, advance)
        return Part(
            name=name,
            images=in_memory(lazy, inputs, advance) if keep else lazy,
            labels=torch.from_numpy(targets[positions])
            if values is None
            else task.scaled(torch.from_numpy(values[positions])),
            mean=mean,
            std=std,
            augment=config.augment if name == "train" else "none",
            transforms=transforms if name == "train" else None,
            masked=source.form == "mask",
        )

    try:
        train, selection, validation = (part(*one) for one in pools)
    except UnreadableImageError:
        _surveyed(config, source, plan, everything=True, on_count=None)  # raises with all names
        raise
    return DataParts(
        train=train,
        selection=selection,
        validation=validation,
        labels=plan.labels,
        image_size=config.image_size,
        mean=mean,
        std=std,
        inputs=inputs,
        files=_files(source),
        summary=source_summary(config, source, plan, checked=True, task=request.config.kind),
        given_task=task,
    )


def _evidence(source: Source, plan: Assignment, task: TaskConfig) -> Evidence:
    """Return what the training targets say of a loss's weights and of a metric's scale."""
    if isinstance(source.train.images, MaskedImages | DatasetImages) and source.form == "mask":
        if task.class_weights != "balanced":
            return Evidence()
        return Evidence(counts=source.train.images.counts(plan.train.tolist()))
    if plan.values is None:
        targets = torch.from_numpy(plan.targets[plan.train])
        known = source.form == "class"
        return Evidence(
            counts=torch.bincount(targets, minlength=len(plan.labels)) if known else None
        )
    values = torch.from_numpy(plan.values[plan.train])
    if source.form == "labels":
        positive = (values > 0).sum(dim=0)
        return Evidence(counts=torch.cat([positive, torch.tensor([len(values)])]), values=values)
    return Evidence(values=values)


def _files(source: Source) -> Mapping[str, int] | None:
    """Return the size of each image file by part, label and name, independent of the location."""
    sizes: dict[str, int] = {}
    for name, pool in (("train", source.train), ("validation", source.validation)):
        if pool is not None and isinstance(pool.images, FileImages):
            labels = [f"{source.labels[number]}/" for number in pool.targets.tolist()]
            if source.form != "class":
                labels = [""] * len(labels)
            for label, key, size in zip(labels, pool.keys, pool.images.sizes(), strict=True):
                sizes[f"{name}/{label}{key}"] = size
    return sizes or None


def _check_source_labels(
    config: DataConfig, source: Source, pretrain: PretrainConfig | None
) -> None:
    """Check the labels that a network is pretrained on."""
    if pretrain is None:
        return
    whole = source
    if config.labels is not None and config.name == "folder":
        whole = open_source(config, labels=pretrain.labels)
    labels = source_labels(config, whole, pretrain)
    assign(config, whole, labels=labels, seed=0)
