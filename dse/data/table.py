"""A folder of images with a table of their labels, or of numbers to predict."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dse.data.files import Passed, images_below
from dse.data.images import FileImages
from dse.data.layout import Kind, kind_of
from dse.data.reading import Reading
from dse.data.sources import Pool, Source
from dse.data.targets import Form
from dse.errors import DataError
from dse.names import nearest
from dse.textfiles import exists

SPLIT = "split"
_TABBED = (".tsv", ".tab")
_MOST_SHOWN = 40  # characters of a cell in a message


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One row of the table: a file, its values, and its part if the table tells."""

    line: int
    file: str
    values: tuple[float, ...]
    part: Kind | None


def image_table(
    root: Path,
    table: Path,
    *,
    reading: Reading,
    form: Form,
    labels: Sequence[str] | None = None,
) -> Source:
    """Read a table of images, without decoding any.

    Args:
        root: folder that the file names are relative to.
        table: CSV file in UTF-8 with a header, or TSV by its suffix; the first column holds the
            names.
        reading: shape of the images after decoding.
        form: "labels" for columns of 0 and 1, "values" for any numbers.
        labels: columns to use; None for all but the first and `split`.

    Raises:
        DataError: if the table or a file in it is missing, or a cell can't be used; the message
            names the line.
    """
    if not exists(root) or not root.is_dir():
        raise DataError(f"data.root: {root} is not a folder: name the folder of the images")
    names, rows = _read(table, form=form, labels=labels)
    parts = {kind: [row for row in rows if row.part == kind] for kind in (None, *_KINDS)}
    train = parts["train"] or parts[None]
    held = parts["validation"] or parts["test"]
    if not train:
        raise DataError(f"{table}: no row has {SPLIT} train: name the part of each image")
    if held and parts[None]:
        raise DataError(
            f"{table}, line {parts[None][0].line}: {SPLIT} names no part: write train, val or test"
        )
    unused = parts["test"] if parts["validation"] and parts["test"] else []
    passed = Passed(root)
    listed = {row.file for row in rows}
    for path in images_below(root, passed):
        if path.relative_to(root).as_posix() not in listed:
            passed.add(f"not in {table.name}", path)
    notes = [f"targets are the columns of {table}"]
    if unused:
        notes.append(
            f"{len(unused)} rows of the test part are not used: there is a validation part"
        )
    origin = f"rows of {table.name}"
    return Source(
        labels=names,
        train=_pool(root, table, train, reading),
        validation=_pool(root, table, held, reading) if held else None,
        train_origin=origin,
        validation_origin=origin,
        notes=tuple(notes),
        passed_over=passed.summaries(),
        form=form,
    )


_KINDS: tuple[Kind, ...] = ("train", "validation", "test")


def _pool(root: Path, table: Path, rows: Sequence[_Row], reading: Reading) -> Pool:
    paths = []
    for row in rows:
        path = root / row.file
        if not path.resolve().is_relative_to(root.resolve()):
            raise DataError(f"{table}, line {row.line}: {row.file!r} lies outside {root}")
        if not path.is_file():
            raise DataError(f"{table}, line {row.line}: there is no image {row.file!r} in {root}")
        paths.append(path)
    return Pool(
        images=FileImages(paths, reading),
        targets=np.zeros(len(rows), dtype=np.int64),
        values=np.array([row.values for row in rows], dtype=np.float32),
        keys=tuple(row.file for row in rows),
    )


def _read(
    table: Path, *, form: Form, labels: Sequence[str] | None
) -> tuple[tuple[str, ...], list[_Row]]:
    """Read a table's columns and rows."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t" if table.suffix in _TABBED else ",")
            header = [cell.strip() for cell in next(reader, [])]
            columns = _columns(table, header, labels)
            rows = [
                _row(
                    table,
                    reader.line_num,
                    dict(zip(header, cells, strict=False)),
                    cells,
                    header=header,
                    columns=columns,
                    form=form,
                )
                for cells in reader
                if any(cell.strip() for cell in cells)
            ]
    except OSError as error:
        raise DataError(f"data.table: {table} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"data.table: {table} is not UTF-8 text: save it as such") from error
    except csv.Error as error:
        raise DataError(f"data.table: {table} is no CSV file: {error}") from error
    if not rows:
        raise DataError(f"data.table: {table} has no rows: give one for each image")
    seen: dict[str, int] = {}
    for row in rows:
        if (before := seen.setdefault(row.file, row.line)) != row.line:
            raise DataError(
                f"{table}, line {row.line}: {row.file!r} stands in line {before} already: take one "
                "out"
            )
    return columns, rows


def _columns(table: Path, header: Sequence[str], labels: Sequence[str] | None) -> tuple[str, ...]:
    """Return the columns of targets."""
    if len(set(header)) < len(header):
        twice = next(one for one in header if header.count(one) > 1)
        raise DataError(f"data.table: {table} has two columns {twice!r}: rename one")
    found = [one for one in header[1:] if one != SPLIT]
    if labels:
        for label in labels:
            if label not in found:
                near = nearest(label, found)
                hint = f"did you mean {near!r}?" if near else f"it has {', '.join(found[:12])}"
                raise DataError(f"data.labels: {table} has no column {label!r}: {hint}")
        return tuple(labels)
    if not found:
        beside = f"has no column beside {header[0]!r}" if header else "is empty"
        raise DataError(
            f"data.table: {table} {beside}: give the file's name first, then a column for each "
            "label or number"
        )
    return tuple(found)


def _row(
    table: Path,
    line: int,
    cells: Mapping[str, str],
    raw: Sequence[str],
    *,
    header: Sequence[str],
    columns: Sequence[str],
    form: Form,
) -> _Row:
    if len(raw) != len(header):
        raise DataError(
            f"{table}, line {line}: it has {len(raw)} cells, and the header {len(header)}: give "
            "one for each column"
        )
    part = cells.get(SPLIT, "").strip()
    kind = kind_of(part) if part else None
    if part and kind is None:
        raise DataError(f"{table}, line {line}: {SPLIT} is {part!r}: write train, val or test")
    values = tuple(_number(table, line, one, cells[one], form=form) for one in columns)
    name = raw[0].strip()
    if not name or not name.isprintable():
        raise DataError(
            f"{table}, line {line}: {name!r} is no file's name: give one, or take it out"
        )
    file = Path(name).as_posix()
    return _Row(line=line, file=file, values=values, part=kind)


def _number(table: Path, line: int, column: str, cell: str, *, form: Form) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    shown = cell if len(cell) <= _MOST_SHOWN else f"{cell[:_MOST_SHOWN]}..."
    place = f"{table}, line {line}, column {column!r}: {shown!r}"
    if form == "labels" and value not in (0, 1):
        raise DataError(f"{place} is not 0 or 1: say whether the image has the label")
    if not abs(value) <= float(np.finfo(np.float32).max):
        raise DataError(f"{place} is not a number: give one, or take the row out")
    return value
