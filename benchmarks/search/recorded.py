"""The tables of evaluated candidates: a line each, channels kept in execution order."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from world import Kept, World

HERE = Path(__file__).parent
STUDIES = ("digits", "cifar4")
_FIELDS = (
    "source",
    "kept",
    "peak_bytes",
    "accuracy",
    "loss",
    "images_trained",
    "images_forward",
    "cpu_seconds",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One evaluation at fidelity `short`.

    Attributes:
        source: what drew the candidate first.
        kept: channels by group.
        accuracy: on the selection part.
    """

    source: str
    kept: Kept
    peak_bytes: int
    accuracy: float
    loss: float
    images_trained: int
    images_forward: int
    cpu_seconds: float


def table_of(study: str) -> Path:
    """Where the candidates of a study are kept."""
    return HERE / f"{study}.csv"


def fidelity_table_of(study: str) -> Path:
    """Where a study's candidates of several fidelities and seeds are kept."""
    return HERE / f"{study}_fidelity.csv"


def key_of(kept: Sequence[int]) -> str:
    """Name a candidate by its channels."""
    return " ".join(map(str, kept))


def read(path: Path, world: World) -> list[Row]:
    """Read a table, and check that its peaks are those of this world's memory model.

    Raises:
        ValueError: if a peak isn't: the table was recorded for another network or step.
    """
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [_row(line) for line in csv.DictReader(file)]
    if rows:
        batch_size = world.study.training.batch_size
        peaks = world.model.peaks([row.kept for row in rows], batch_size=batch_size)
        for row, peak in zip(rows, peaks, strict=True):
            if row.peak_bytes != peak:
                raise ValueError(f"{path}: {row.kept} holds {peak} bytes, not {row.peak_bytes}")
    return rows


def append(path: Path, row: Row, world: World) -> None:
    """Add a line."""
    if len(row.kept) != len(world.full):
        raise ValueError(f"{len(row.kept)} channel counts for {len(world.full)} groups")
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(_FIELDS)
        writer.writerow(
            (
                row.source,
                key_of(row.kept),
                row.peak_bytes,
                f"{row.accuracy:.6f}",
                f"{row.loss:.5f}",
                row.images_trained,
                row.images_forward,
                f"{row.cpu_seconds:.3f}",
            )
        )


def _row(line: dict[str, str]) -> Row:
    return Row(
        source=line["source"],
        kept=tuple(map(int, line["kept"].split())),
        peak_bytes=int(line["peak_bytes"]),
        accuracy=float(line["accuracy"]),
        loss=float(line["loss"]),
        images_trained=int(line["images_trained"]),
        images_forward=int(line["images_forward"]),
        cpu_seconds=float(line["cpu_seconds"]),
    )
