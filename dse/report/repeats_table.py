"""The table of what was scored at `short` with several seeds before finalists were chosen."""

import json

from dse.report.columns import (
    CANDIDATE_FIELDS,
    candidate_cells,
    label_column,
    memory_columns,
    recipe_columns,
)
from dse.report.render import Cell, Column, Row, Table
from dse.results.candidate_records import RepeatRecord
from dse.results.fidelity import short_noise
from dse.results.records import RunRecords


def repeats_table(records: RunRecords) -> Table | None:
    """Build the table, by peak memory; None if nothing was scored again."""
    if not records.repeats:
        return None
    measure = records.measure
    rows: list[Row] = [_row(records, one) for one in records.repeats]
    by_label = {one.label: one for one in records.repeats}

    def scores(row: Row) -> str:
        return ", ".join(map(measure.number, by_label[str(row["label"])].accuracies))

    def mean(row: Row) -> str:
        one = by_label[str(row["label"])]
        spread = "" if one.spread is None else f" ± {measure.spread_number(one.spread)}"
        return f"{measure.number(one.accuracy)}{spread}"

    title = measure.short_title
    return Table(
        name="repeats",
        fields=list(rows[0]),
        rows=rows,
        columns=[
            label_column("Candidate"),
            *recipe_columns(rows),
            *memory_columns(records, rows),
            Column(title=f"{title}, short, by seed{measure.unit}", show=scores),
            Column(title=f"{title}, short, mean{measure.unit}", show=mean),
            Column(title="In full", show=lambda row: "yes" if row["in_full"] == "true" else "no"),
        ],
    )


def repeats_note(records: RunRecords) -> str:
    """Explain the table, and how much one seed says."""
    noise, measure = short_noise(records.repeats), records.measure
    text = (
        "The most accurate candidates and baselines within each budget, scored again at short "
        "before finalists were chosen by these means."
    )
    if noise is None:
        return text
    unit = " points" if measure.percent else ""
    return text + (
        f" One candidate's score varies from seed to seed by {measure.spread_number(noise)}{unit} "
        "(standard deviation, pooled): in columns of one seed, smaller differences mean little."
    )


def _row(records: RunRecords, one: RepeatRecord) -> Row:
    cells: dict[str, Cell] = candidate_cells(records, one.candidate)
    return {
        "label": one.label,
        "trial": one.trial,
        "peak_bytes": one.peak_bytes,
        "short_accuracies": json.dumps(list(one.accuracies)),
        "short_accuracy_mean": one.accuracy,
        "short_accuracy_std": one.spread,
        "in_full": "false" if records.final_of(one.candidate) is None else "true",
        **{name: cells[name] for name in CANDIDATE_FIELDS},
    }
