"""Drafts a study: looks up or tries what a run needs, and checks the resulting text."""

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dse.config import TaskConfig, load_study
from dse.data import DataSummary, check_data
from dse.data.summary import counted, printable
from dse.draft.given import Given
from dse.draft.network import find_network, find_sample_network
from dse.draft.text import Facts, study_text, written_path
from dse.errors import ConfigError, DataError, InfeasibleError
from dse.inputs import InputSpec
from dse.search.plan import Plan, dry_run

_CLASSIFIER = "torchvision:mobilenet_v2"
_SEGMENTER = "torchvision:lraspp_mobilenet_v3_large"
_SAMPLE = 200  # images whose headers are read, to learn how large they are
_LARGEST_BATCH = 32
_SHARES = (25, 50)  # percent of the unpruned peak
_ANY_SHARES = (99, 100)  # percent; budgets that some network always fits
_STEP = 5  # percent, to which other shares are rounded
_TOO_WIDE = 0.4  # share of the peak above which the smallest network needs a finer multiple


@dataclass(frozen=True, kw_only=True)
class Draft:
    """The text of a study, and what a run of it would do.

    Attributes:
        text: the text.
        plan: what a run would do.
        samples: shape of a sample, as text.
    """

    text: str
    plan: Plan
    samples: str


def draft_study(file: Path, *, given: Given, weights: str | None, image_size: int | None) -> Draft:
    """Draft a study for a user's data and a network.

    Args:
        file: future file of the study, which isn't written here. Modules of a factory are searched
            in its folder, and paths below its folder become relative.
        given: the data and the network.
        weights: a file, the name of the library's weights or "none"; None means the library's best.
        image_size: side of the images in pixels; None tries common sizes.

    Returns:
        The text of the study, which was parsed and checked as by `dse run --dry-run`.

    Raises:
        DseError: if the data, the network or the weights can't be used.
    """
    folder = file.absolute().parent
    task = TaskConfig(kind=given.kind)
    data = check_data(given.config, task=task)
    labels = data.labels or ()
    _check_writable(labels)
    name = given.network or _usual_network(given)
    if given.samples is not None:
        if image_size is not None:
            raise ConfigError(
                f"--image-size has no use: the samples are {given.samples.text}: leave it out"
            )
        known = find_sample_network(
            name, weights=weights, classes=len(labels), inputs=given.samples, folder=folder
        )
    else:
        known = find_network(
            name,
            weights=weights,
            classes=len(labels),
            image_size=image_size,
            sides=given.short_sides(most=_SAMPLE),
            folder=folder,
            outputs=task.outputs,
        )
    facts = Facts(
        file=file,
        root=written_path(given.root, folder),
        table=None if given.table is None else written_path(given.table, folder),
        name=name,
        network=known,
        data=data,
        batch_size=_batch_size(data),
    )

    samples = given.samples or InputSpec.image(known.image_size or 0)

    def drafted(shares: tuple[int, int], *, fine: bool, earlier: Plan | None = None) -> Draft:
        text = study_text(facts, shares=shares, fine=fine, plan=earlier)
        plan = dry_run(load_study(file, text=text), data=data)
        return Draft(text=text, plan=plan, samples=samples.sample_text)

    fine, plan = False, None
    with suppress(ConfigError):  # layers may be too narrow; any other error is raised again below
        plan = drafted(_ANY_SHARES, fine=fine).plan
    if plan is None or _smallest(plan) > _TOO_WIDE:
        fine = True
        plan = drafted(_ANY_SHARES, fine=fine).plan
    return drafted(_shares(_smallest(plan)), fine=fine, earlier=plan)


def _usual_network(given: Given) -> str:
    """Return the network that a study is drafted with if none is named.

    Raises:
        ConfigError: if the samples are no images.
    """
    if given.samples is not None:
        raise ConfigError(
            f"--network is missing: the samples are {given.samples.text}; name an encoder, as in "
            "hf:FOLDER, or a factory of your own"
        )
    return _SEGMENTER if given.kind == "segmentation" else _CLASSIFIER


def _smallest(plan: Plan) -> float:
    """Return the peak of the smallest network of the space as a share of the unpruned one's."""
    return (plan.smallest_peak_bytes or 0) / (plan.unpruned_peak_bytes or 1)


def _check_writable(labels: tuple[str, ...]) -> None:
    for label in labels:
        if printable(label) != label:
            raise DataError(f"the label {printable(label)!r} can't be stored in a study: rename it")


def _shares(smallest: float) -> tuple[int, int]:
    """Choose two budgets, in percent, that the search space can meet.

    Args:
        smallest: peak of the smallest network of the space, as a share of the unpruned one's.

    Raises:
        InfeasibleError: if hardly anything can be pruned.
    """
    low, high = _SHARES
    floor = 100 * smallest
    if floor > 100 - 2 * _STEP:
        raise InfeasibleError(
            f"pruning and recipes save at most {100 - floor:.1f} % of the training step's memory "
            "with this network and batch size: dse memory NETWORK --explain shows what takes it"
        )
    if floor <= low - _STEP:
        return low, high
    room = 100 - floor
    first, second = (
        min(95, _STEP * math.ceil((floor + share * room) / _STEP)) for share in (0.25, 0.5)
    )
    return first, max(second, first + 1)


def _batch_size(data: DataSummary) -> int:
    """Return the largest power of two up to 32 with four batches per epoch, at least 2."""
    images = data.train or 0
    quarter = max(2, min(_LARGEST_BATCH, images // 4))
    size = 1 << (quarter.bit_length() - 1)
    if images < size:
        raise DataError(
            f"{data.place}: {counted(images, 'image')} to train on, too few for a batch of {size}"
        )
    return size
