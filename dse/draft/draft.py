"""Drafts a study: looks up or tries what a run needs, and checks the resulting text."""

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dse.config import DataConfig, load_study
from dse.data import DataSummary, check_data
from dse.data.summary import counted, printable
from dse.draft.network import find_network
from dse.draft.text import SELECTION_SHARE, VALIDATION_SHARE, Facts, study_text, written_path
from dse.errors import ConfigError, DataError, InfeasibleError
from dse.search.plan import Plan, dry_run

_LARGEST_BATCH = 32
_SHARES = (25, 50)  # percent of the unpruned peak
_ANY_SHARES = (99, 100)  # percent; budgets that some network always fits
_STEP = 5  # percent, to which other shares are rounded
_TOO_WIDE = 0.4  # share of the peak above which the smallest network needs a finer multiple


@dataclass(frozen=True, kw_only=True)
class Draft:
    """The text of a study, and what a run of it would do."""

    text: str
    plan: Plan


def draft_study(
    file: Path, *, images: Path, network: str, weights: str | None, image_size: int | None
) -> Draft:
    """Draft a study for a folder of images and a network.

    Args:
        file: future file of the study, which isn't written here. Modules of a factory are searched
            in its folder, and paths below its folder become relative.
        images: folder with a subfolder of images for each label.
        network: one of `dse.names.NETWORKS`.
        weights: a file, the name of the library's weights or "none"; None means the library's best.
        image_size: side of the images in pixels; None tries common sizes.

    Returns:
        The text of the study, which was parsed and checked as by `dse run --dry-run`.

    Raises:
        DseError: if the images, the network or the weights can't be used.
    """
    folder = file.absolute().parent
    data = check_data(
        DataConfig(
            name="folder",
            root=images.absolute(),
            validation_share=VALIDATION_SHARE,
            selection_share=SELECTION_SHARE,
        )
    )
    labels = data.labels or ()
    _check_writable(labels)
    known = find_network(
        network,
        weights=weights,
        classes=len(labels),
        image_size=image_size,
        images=images,
        folder=folder,
    )
    facts = Facts(
        file=file,
        root=written_path(images, folder),
        name=network,
        network=known,
        data=data,
        batch_size=_batch_size(data),
    )

    def drafted(shares: tuple[int, int], *, fine: bool, earlier: Plan | None = None) -> Draft:
        text = study_text(facts, shares=shares, fine=fine, plan=earlier)
        return Draft(text=text, plan=dry_run(load_study(file, text=text), data=data))

    fine, plan = False, None
    with suppress(ConfigError):  # layers may be too narrow; any other error is raised again below
        plan = drafted(_ANY_SHARES, fine=fine).plan
    if plan is None or _smallest(plan) > _TOO_WIDE:
        fine = True
        plan = drafted(_ANY_SHARES, fine=fine).plan
    return drafted(_shares(_smallest(plan)), fine=fine, earlier=plan)


def _smallest(plan: Plan) -> float:
    """Return the peak of the smallest network of the space as a share of the unpruned one's."""
    return (plan.smallest_peak_bytes or 0) / (plan.unpruned_peak_bytes or 1)


def _check_writable(labels: tuple[str, ...]) -> None:
    for label in labels:
        if printable(label) != label:
            raise DataError(
                f"the subfolder's name {printable(label)!r} can't be stored in a study: rename it"
            )


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
