"""The tables of a report: all trials, the front, the finalists and the baselines.

CSV files hold raw values: bytes, seconds, accuracies from 0 to 1. Markdown and LaTeX show MiB,
milliseconds and percent.
"""

import json

from dse.candidate import Candidate
from dse.metrics import SHORT_TITLES
from dse.report.render import Cell, Column, Row, Table
from dse.report.selection import front_trials, knee_trial
from dse.report.wording import decimals, mib, size_label
from dse.results.records import FinalRecord, RunRecords
from dse.results.ties import can_test, ties_of

_NOTHING = "\N{EN DASH}"

_TIES = Column(title="Tied with", show=lambda row: str(row["tied_with"] or _NOTHING), align="left")

_FINAL_FIELDS = (
    "full_seeds",
    "full_accuracy_mean",
    "full_accuracy_std",
    "full_validation_accuracy_mean",
    "full_validation_accuracy_std",
    "step_seconds",
)


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
        "kept_channels",
        "recipe",
        "digest",
        "candidate",
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
            **_candidate_cells(records, trial.candidate),
            **{f"param.{name}": value for name, value in trial.params.items()},
        }
        for trial in records.trials
    ]
    return Table(name="trials", fields=fields, rows=rows)


def front_table(records: RunRecords, *, picked: Candidate | None) -> Table:
    """Build the table of the front's members by peak memory, with the unpruned network below."""
    bend = knee_trial(records)
    rows: list[Row] = []
    for trial in front_trials(records):
        notes = [
            *(["picked"] if picked is not None and picked.digest == trial.candidate.digest else []),
            *(["knee"] if bend is not None and bend.number == trial.number else []),
        ]
        rows.append(
            {
                "label": f"trial {trial.number}",
                "trial": trial.number,
                "peak_bytes": trial.peak_bytes,
                "short_accuracy": trial.accuracy,
                **_final_cells(records.final_of(trial.candidate)),
                "fits_budget_bytes": _smallest_budget(records, trial.peak_bytes),
                "notes": ", ".join(notes),
                **_candidate_cells(records, trial.candidate),
            }
        )
    members = len(rows)
    rows += _unpruned_rows(records)
    return Table(
        name="front",
        fields=[
            "label",
            "trial",
            "peak_bytes",
            "short_accuracy",
            *_FINAL_FIELDS,
            "fits_budget_bytes",
            "notes",
            "kept_channels",
            "recipe",
            "digest",
            "candidate",
        ],
        rows=rows,
        columns=[
            _label_column("Candidate"),
            *_recipe_columns(rows),
            *_memory_columns(records, rows),
            _kept_column(records),
            *_score_columns(records),
            _step_column(),
            Column(title="Fits", show=_fits),
            Column(title="Notes", show=lambda row: str(row["notes"]), align="left"),
        ],
        rule_before=frozenset({members} if members else ()),
    )


def finalists_table(records: RunRecords) -> Table:
    """Build the table of fully fine-tuned candidates by peak memory."""
    title = SHORT_TITLES[records.metric]
    rows: list[Row] = [
        {
            "label": final.label,
            "trial": final.trial,
            "peak_bytes": final.peak_bytes,
            **_final_cells(final),
            "full_accuracies": _listed(final.accuracies),
            "full_validation_accuracies": _listed(final.validation_accuracies),
            "seeds": " ".join(map(str, final.seeds)),
            "tied_with": _ties(final, records),
            **_candidate_cells(records, final.candidate),
        }
        for final in sorted(records.finals, key=lambda final: (final.peak_bytes, final.label))
    ]
    return Table(
        name="finalists",
        fields=[
            "label",
            "trial",
            "peak_bytes",
            *_FINAL_FIELDS,
            "full_accuracies",
            "full_validation_accuracies",
            "seeds",
            "tied_with",
            "kept_channels",
            "recipe",
            "digest",
            "candidate",
        ],
        rows=rows,
        columns=[
            _label_column("Candidate"),
            *_recipe_columns(rows),
            *_memory_columns(records, rows),
            _full_column(f"{title}, selection (%)", "full_accuracy"),
            _full_column(f"{title}, validation (%)", "full_validation_accuracy"),
            Column(title="Change (points)", show=lambda row: _change(records, row)),
            Column(title="Seeds", show=lambda row: str(row["full_seeds"])),
            *([_TIES] if can_test(records.finals) else []),
            _step_column(),
        ],
    )


def baselines_table(records: RunRecords) -> Table:
    """Build the table of baselines: the unpruned network, and candidates that need no search."""
    rows: list[Row] = [
        {
            "label": baseline.label,
            "kind": baseline.kind,
            "ratio": baseline.ratio,
            "peak_bytes": baseline.peak_bytes,
            "short_accuracy": baseline.accuracy,
            **_final_cells(records.final_of(baseline.candidate)),
            "fits_budget_bytes": _smallest_budget(records, baseline.peak_bytes),
            **_candidate_cells(records, baseline.candidate),
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
            *_FINAL_FIELDS,
            "fits_budget_bytes",
            "kept_channels",
            "recipe",
            "digest",
            "candidate",
        ],
        rows=rows,
        columns=[
            _label_column("Baseline"),
            *_recipe_columns(rows),
            *_memory_columns(records, rows),
            _kept_column(records),
            *_score_columns(records),
            Column(title="Fits", show=_fits),
        ],
    )


def _unpruned_rows(records: RunRecords) -> list[Row]:
    unpruned = records.unpruned
    if unpruned is None:
        return []
    return [
        {
            "label": unpruned.label,
            "peak_bytes": unpruned.peak_bytes,
            "short_accuracy": unpruned.accuracy,
            **_final_cells(records.final_of(unpruned.candidate)),
            "fits_budget_bytes": _smallest_budget(records, unpruned.peak_bytes),
            "notes": "",
            **_candidate_cells(records, unpruned.candidate),
        }
    ]


def _candidate_cells(records: RunRecords, candidate: Candidate) -> dict[str, Cell]:
    return {
        "kept_channels": sum(candidate.channels.get(name, full) for name, full in records.groups),
        "recipe": candidate.recipe_text,
        "digest": candidate.digest,
        "candidate": candidate.canonical_json(),
    }


def _final_cells(final: FinalRecord | None) -> dict[str, Cell]:
    if final is None:
        return dict.fromkeys(_FINAL_FIELDS)
    return {
        "full_seeds": len(final.accuracies),
        "full_accuracy_mean": final.accuracy,
        "full_accuracy_std": final.spread,
        "full_validation_accuracy_mean": final.validation_accuracy,
        "full_validation_accuracy_std": final.validation_spread,
        "step_seconds": final.step_seconds,
    }


def _ties(final: FinalRecord, records: RunRecords) -> str:
    ties = ties_of(final, records.finals)
    return "not tested" if ties is None else ", ".join(ties)


def _smallest_budget(records: RunRecords, peak_bytes: int) -> int | None:
    return next((one for one in records.study.search.budget_bytes if peak_bytes <= one), None)


def _label_column(title: str) -> Column:
    return Column(title=title, show=lambda row: str(row["label"]), align="left")


def _recipe_columns(rows: list[Row]) -> list[Column]:
    """Return a column of differences from the study's recipe, if there are any."""
    if not any(row["recipe"] for row in rows):
        return []
    return [Column(title="Recipe", show=lambda row: str(row["recipe"] or _NOTHING), align="left")]


def _memory_columns(records: RunRecords, rows: list[Row]) -> list[Column]:
    places = decimals([mib(_number(row, "peak_bytes")) for row in rows])
    whole = records.unpruned_peak_bytes
    return [
        Column(
            title="Peak (MiB)", show=lambda row: f"{mib(_number(row, 'peak_bytes')):.{places}f}"
        ),
        Column(
            title="of unpruned (%)",
            show=lambda row: f"{100 * _number(row, 'peak_bytes') / whole:.1f}",
        ),
    ]


def _kept_column(records: RunRecords) -> Column:
    full = sum(channels for _, channels in records.groups)
    return Column(
        title="Kept channels (%)",
        show=lambda row: f"{100 * _number(row, 'kept_channels') / full:.1f}" if full else _NOTHING,
    )


def _score_columns(records: RunRecords) -> list[Column]:
    title = SHORT_TITLES[records.metric]
    return [
        _percent_column(f"{title}, short (%)", "short_accuracy"),
        _full_column(f"{title}, full (%)", "full_validation_accuracy"),
    ]


def _percent_column(title: str, field: str) -> Column:
    return Column(
        title=title,
        show=lambda row: f"{100 * _number(row, field):.1f}",
    )


def _full_column(title: str, field: str) -> Column:
    def show(row: Row) -> str:
        if row["full_seeds"] is None:
            return _NOTHING
        mean = f"{100 * _number(row, f'{field}_mean'):.1f}"
        if row["full_seeds"] == 1:
            return mean  # a single seed has no standard deviation
        return f"{mean} ± {100 * _number(row, f'{field}_std'):.1f}"

    return Column(title=title, show=show)


def _step_column() -> Column:
    def show(row: Row) -> str:
        if row["step_seconds"] is None:
            return _NOTHING
        milliseconds = 1000 * _number(row, "step_seconds")
        return f"{milliseconds:.{decimals([milliseconds])}f}"

    return Column(title="Step (ms)", show=show)


def _fits(row: Row) -> str:
    budget = row["fits_budget_bytes"]
    return f"≤ {size_label(budget)}" if isinstance(budget, int) else "none"


def _change(records: RunRecords, row: Row) -> str:
    """Return the change from the unpruned network's mean in points, on the validation part."""
    unpruned = records.unpruned
    whole = records.final_of(unpruned.candidate) if unpruned is not None else None
    if whole is None:
        return _NOTHING
    change = 100 * (_number(row, "full_validation_accuracy_mean") - whole.validation_accuracy)
    text = f"{change:+.1f}".replace("-", "\N{MINUS SIGN}")
    return "0.0" if float(f"{change:.1f}") == 0 else text


def _number(row: Row, field: str) -> float:
    value = row[field]
    if not isinstance(value, int | float):
        raise TypeError(f"{field} of {row['label']} is {value!r}, not a number")
    return value


def _listed(values: tuple[float, ...]) -> str:
    return json.dumps(list(values))


def _yes(value: bool) -> str:  # noqa: FBT001 -- formats a flag
    return "true" if value else "false"
