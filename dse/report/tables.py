"""The tables of a report: all trials, the front, the finalists and the baselines.

CSV files hold raw values: bytes, seconds, accuracies from 0 to 1. Markdown and LaTeX show MiB,
milliseconds and percent.
"""

import json

from dse.candidate import Candidate
from dse.report.columns import (
    CANDIDATE_FIELDS,
    FINAL_FIELDS,
    candidate_cells,
    change_column,
    final_cells,
    fits_column,
    full_column,
    kept_column,
    label_column,
    memory_columns,
    recipe_columns,
    score_columns,
    scored_cells,
    step_column,
)
from dse.report.render import NOTHING, Column, Row, Table
from dse.report.selection import front_trials, knee_trial
from dse.results.candidate_records import BaselineRecord, FinalRecord, TrialRecord
from dse.results.records import RunRecords
from dse.results.ties import can_test, ties_of

_TIES = Column(title="Tied with", show=lambda row: str(row["tied_with"] or NOTHING), align="left")


def trials_table(records: RunRecords) -> Table:
    """Build the table of all trials with every detail; it is written as CSV only."""
    front = {trial.number for trial in front_trials(records)}
    parameters = sorted({name for trial in records.trials for name in trial.params})
    objectives = records.study.search.objectives
    fields = [
        "number",
        "state",
        "fidelity",
        "accuracy",
        "peak_bytes",
        "on_front",
        "wall_seconds",
        "seeds",
        "duplicate_of",
        "failure",
        *(f"value.{name}" for name in objectives),
        *CANDIDATE_FIELDS,
        *(f"param.{name}" for name in parameters),
    ]
    rows: list[Row] = [
        {
            "number": trial.number,
            "state": trial.state,
            "fidelity": trial.fidelity,
            "accuracy": trial.accuracy,
            "peak_bytes": trial.peak_bytes,
            "on_front": _yes(trial.number in front),
            "wall_seconds": trial.wall_seconds,
            "seeds": " ".join(map(str, trial.seeds)),
            "duplicate_of": trial.duplicate_of,
            "failure": trial.failure,
            **{f"value.{name}": trial.values.get(name) for name in objectives},
            **candidate_cells(records, trial.candidate),
            **{f"param.{name}": value for name, value in trial.params.items()},
        }
        for trial in records.trials
    ]
    return Table(name="trials", fields=fields, rows=rows)


def front_table(records: RunRecords, *, picked: Candidate | None) -> Table:
    """Build the table of the front's members by peak memory, with the unpruned network below."""
    members, bend = front_trials(records), knee_trial(records)
    rows: list[Row] = [
        {
            **scored_cells(records, trial, label=f"trial {trial.number}"),
            "trial": trial.number,
            "notes": _notes(trial, picked=picked, bend=bend),
        }
        for trial in members
    ]
    if (unpruned := records.unpruned) is not None:
        rows.append(
            {
                **scored_cells(records, unpruned, label=unpruned.label),
                "notes": _notes(unpruned, picked=picked, bend=bend),
            }
        )
    return Table(
        name="front",
        fields=[
            "label",
            "trial",
            "peak_bytes",
            "short_accuracy",
            *FINAL_FIELDS,
            "fits_budget_bytes",
            "notes",
            *CANDIDATE_FIELDS,
        ],
        rows=rows,
        columns=[
            label_column("Candidate"),
            *recipe_columns(rows),
            *memory_columns(records, rows),
            kept_column(records),
            *score_columns(records),
            step_column(),
            fits_column(),
            Column(title="Notes", show=lambda row: str(row["notes"]), align="left"),
        ],
        rule_before=frozenset({len(members)} if members else ()),
    )


def finalists_table(records: RunRecords) -> Table:
    """Build the table of fully fine-tuned candidates by peak memory."""
    title = records.measure.short_title
    rows: list[Row] = [
        {
            "label": final.label,
            "trial": final.trial,
            "peak_bytes": final.peak_bytes,
            **final_cells(final),
            "full_accuracies": _listed(final.accuracies),
            "full_validation_accuracies": _listed(final.validation_accuracies),
            "seeds": " ".join(map(str, final.seeds)),
            "tied_with": _ties(final, records),
            **candidate_cells(records, final.candidate),
        }
        for final in sorted(records.finals, key=lambda final: (final.peak_bytes, final.label))
    ]
    return Table(
        name="finalists",
        fields=[
            "label",
            "trial",
            "peak_bytes",
            *FINAL_FIELDS,
            "full_accuracies",
            "full_validation_accuracies",
            "seeds",
            "tied_with",
            *CANDIDATE_FIELDS,
        ],
        rows=rows,
        columns=[
            label_column("Candidate"),
            *recipe_columns(rows),
            *memory_columns(records, rows),
            full_column(f"{title}, selection", "full_accuracy", records.measure),
            full_column(f"{title}, validation", "full_validation_accuracy", records.measure),
            change_column(records),
            Column(title="Seeds", show=lambda row: str(row["full_seeds"])),
            *([_TIES] if can_test(records.finals) else []),
            step_column(),
        ],
    )


def baselines_table(records: RunRecords) -> Table:
    """Build the table of baselines: the unpruned network, and candidates that need no search."""
    rows: list[Row] = [
        {
            **scored_cells(records, baseline, label=baseline.label),
            "kind": baseline.kind,
            "ratio": baseline.ratio,
        }
        for baseline in records.baselines
    ]
    return Table(
        name="baselines",
        fields=[
            "label",
            "kind",
            "ratio",
            "peak_bytes",
            "short_accuracy",
            *FINAL_FIELDS,
            "fits_budget_bytes",
            *CANDIDATE_FIELDS,
        ],
        rows=rows,
        columns=[
            label_column("Baseline"),
            *recipe_columns(rows),
            *memory_columns(records, rows),
            kept_column(records),
            *score_columns(records),
            fits_column(),
        ],
    )


def _notes(
    one: TrialRecord | BaselineRecord, *, picked: Candidate | None, bend: TrialRecord | None
) -> str:
    notes = []
    if picked is not None and picked.digest == one.candidate.digest:
        notes.append("picked")
    if one is bend:
        notes.append("knee")
    return ", ".join(notes)


def _ties(final: FinalRecord, records: RunRecords) -> str:
    ties = ties_of(final, records.finals)
    return "not tested" if ties is None else ", ".join(ties)


def _listed(values: tuple[float, ...]) -> str:
    return json.dumps(list(values))


def _yes(value: bool) -> str:  # noqa: FBT001 -- formats a flag
    return "true" if value else "false"
