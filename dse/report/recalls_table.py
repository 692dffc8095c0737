"""The table of recalls: the recall of each class in the fully fine-tuned networks."""

import statistics
from collections.abc import Mapping, Sequence

from dse.candidate import Candidate
from dse.metrics import recalls
from dse.report.render import NOTHING, Column, Row, Table
from dse.results.balance import ClassImages, missed_warning
from dse.results.candidate_records import FinalRecord
from dse.results.records import RunRecords

MOST_SHOWN = 20
"""Maximum number of classes in Markdown and LaTeX; the CSV has all."""

_MOST_NETWORKS = 5  # maximum number of networks side by side
Recalls = Mapping[str, tuple[float | None, ...]]
"""Recalls by network label: one per class, from 0 to 1; None for classes without images."""


def final_recalls(records: RunRecords) -> Recalls:
    """Return mean recalls over the seeds on the validation part, where the run stored them."""
    images = records.class_images
    if images is None:
        return {}
    return {
        final.label: recalls(final.validation_correct, images.validation)
        for final in records.finals
        if final.validation_correct
    }


def recalls_table(records: RunRecords, *, picked: Candidate | None) -> Table | None:
    """Build the table of each class's recall, lowest first.

    Classes are sorted by the recalls of the picked candidate, or by the mean over all networks if
    none is picked.

    Returns:
        The table; None if nothing was fine-tuned in full, or the run stored no recalls.
    """
    images, found = records.class_images, final_recalls(records)
    if images is None or not found:
        return None
    chosen = [one.label for one in records.finals if _is(one, picked) and one.label in found]
    order = sorted(
        range(len(images.labels)),
        key=lambda number: (_mean(found, chosen or list(found), number), images.validation[number]),
    )
    rows = [_row(images, found, number) for number in order]
    return Table(
        name="recalls",
        fields=list(rows[0]),
        rows=rows,
        columns=[
            Column(title="Class", show=lambda row: str(row["class"]), align="left"),
            Column(title="Images", show=lambda row: str(row["validation_images"])),
            *(_recall_column(label) for label in _shown(records, found, chosen)),
        ],
        most_shown=MOST_SHOWN,
    )


def missed_warnings(records: RunRecords) -> list[str]:
    """Return one warning per network that never classifies some class correctly."""
    images = records.class_images
    if images is None:
        return []
    lines = [
        missed_warning(label, found, images, part="validation")
        for label, found in final_recalls(records).items()
    ]
    return [line for line in lines if line is not None]


def _row(images: ClassImages, found: Recalls, number: int) -> Row:
    return {
        "class": images.labels[number],
        "train_images": images.train[number],
        "selection_images": images.selection[number],
        "validation_images": images.validation[number],
        **{f"recall {label}": of[number] for label, of in found.items()},
    }


def _shown(records: RunRecords, found: Recalls, chosen: Sequence[str]) -> list[str]:
    """Return the labels to show: the unpruned network, the picked one, then others that fit."""
    first = [] if records.unpruned is None else [records.unpruned.label]
    ordered = dict.fromkeys([*first, *chosen, *found])
    return [label for label in ordered if label in found][:_MOST_NETWORKS]


def _recall_column(label: str) -> Column:
    def show(row: Row) -> str:
        value = row[f"recall {label}"]
        return f"{100 * value:.1f}" if isinstance(value, int | float) else NOTHING

    return Column(title=f"{label} (%)", show=show)


def _mean(found: Recalls, labels: Sequence[str], number: int) -> float:
    values = [found[label][number] for label in labels]
    return statistics.fmean([one for one in values if one is not None] or [1.0])


def _is(final: FinalRecord, picked: Candidate | None) -> bool:
    return picked is not None and final.candidate.digest == picked.digest
