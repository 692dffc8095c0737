"""Cells and columns that the tables of candidates share."""

from dse.candidate import Candidate
from dse.measures import Measure
from dse.report.render import NOTHING, Cell, Column, Row
from dse.report.wording import decimals, mib, size_label
from dse.results.candidate_records import BaselineRecord, FinalRecord, TrialRecord
from dse.results.records import RunRecords

CANDIDATE_FIELDS = ("kept_channels", "recipe", "digest", "candidate")
FINAL_FIELDS = (
    "full_seeds",
    "full_accuracy_mean",
    "full_accuracy_std",
    "full_validation_accuracy_mean",
    "full_validation_accuracy_std",
    "step_seconds",
)


def candidate_cells(records: RunRecords, candidate: Candidate) -> dict[str, Cell]:
    """Return the cells of `CANDIDATE_FIELDS`."""
    return {
        "kept_channels": sum(candidate.channels.get(name, full) for name, full in records.groups),
        "recipe": candidate.recipe_text,
        "digest": candidate.digest,
        "candidate": candidate.canonical_json(),
    }


def final_cells(final: FinalRecord | None) -> dict[str, Cell]:
    """Return the cells of `FINAL_FIELDS`, empty if the candidate wasn't trained in full."""
    if final is None:
        return dict.fromkeys(FINAL_FIELDS)
    return {
        "full_seeds": len(final.accuracies),
        "full_accuracy_mean": final.accuracy,
        "full_accuracy_std": final.spread,
        "full_validation_accuracy_mean": final.validation_accuracy,
        "full_validation_accuracy_std": final.validation_spread,
        "step_seconds": final.step_seconds,
    }


def scored_cells(
    records: RunRecords, one: TrialRecord | BaselineRecord, *, label: str
) -> dict[str, Cell]:
    """Return the cells of a trial or baseline: label, memory, accuracies, budget, candidate."""
    budgets = records.study.search.budget_bytes
    return {
        "label": label,
        "peak_bytes": one.peak_bytes,
        "short_accuracy": one.accuracy,
        **final_cells(records.final_of(one.candidate)),
        "fits_budget_bytes": next((size for size in budgets if one.peak_bytes <= size), None),
        **candidate_cells(records, one.candidate),
    }


def label_column(title: str) -> Column:
    """Return the column that names the rows."""
    return Column(title=title, show=lambda row: str(row["label"]), align="left")


def recipe_columns(rows: list[Row]) -> list[Column]:
    """Return a column of differences from the study's recipe, if there are any."""
    if not any(row["recipe"] for row in rows):
        return []
    return [Column(title="Recipe", show=lambda row: str(row["recipe"] or NOTHING), align="left")]


def memory_columns(records: RunRecords, rows: list[Row]) -> list[Column]:
    """Return the columns of peak memory, in MiB and as a share of the unpruned network's."""
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


def kept_column(records: RunRecords) -> Column:
    """Return the column of the share of channels that are kept."""
    full = sum(channels for _, channels in records.groups)
    return Column(
        title="Kept channels (%)",
        show=lambda row: f"{100 * _number(row, 'kept_channels') / full:.1f}" if full else NOTHING,
    )


def score_columns(records: RunRecords) -> list[Column]:
    """Return the columns of the study's metric at both fidelities."""
    measure = records.measure
    title = measure.short_title
    return [
        Column(
            title=f"{title}, short{measure.unit}",
            show=lambda row: measure.number(_number(row, "short_accuracy")),
        ),
        full_column(f"{title}, full", "full_validation_accuracy", measure),
    ]


def full_column(title: str, field: str, measure: Measure) -> Column:
    """Return a column of means over the seeds, with standard deviations if there are several."""

    def show(row: Row) -> str:
        if row["full_seeds"] is None:
            return NOTHING
        mean = measure.number(_number(row, f"{field}_mean"))
        if row["full_seeds"] == 1:
            return mean  # a single seed has no standard deviation
        return f"{mean} ± {measure.spread_number(_number(row, f'{field}_std'))}"

    return Column(title=f"{title}{measure.unit}", show=show)


def step_column() -> Column:
    """Return the column of the time that one training step takes."""

    def show(row: Row) -> str:
        if row["step_seconds"] is None:
            return NOTHING
        milliseconds = 1000 * _number(row, "step_seconds")
        return f"{milliseconds:.{decimals([milliseconds])}f}"

    return Column(title="Step (ms)", show=show)


def fits_column() -> Column:
    """Return the column of the smallest budget that a candidate fits."""

    def show(row: Row) -> str:
        budget = row["fits_budget_bytes"]
        return f"≤ {size_label(budget)}" if isinstance(budget, int) else "none"

    return Column(title="Fits", show=show)


def change_column(records: RunRecords) -> Column:
    """Return the column of changes from the unpruned network's mean, on the validation part."""
    unpruned = records.unpruned
    whole = records.final_of(unpruned.candidate) if unpruned is not None else None

    def show(row: Row) -> str:
        if whole is None:
            return NOTHING
        change = 100 * (_number(row, "full_validation_accuracy_mean") - whole.validation_accuracy)
        text = f"{change:+.1f}".replace("-", "\N{MINUS SIGN}")
        return "0.0" if float(f"{change:.1f}") == 0 else text

    return Column(title="Change (points)", show=show)


def _number(row: Row, field: str) -> float:
    value = row[field]
    if not isinstance(value, int | float):
        raise TypeError(f"{field} of {row['label']} is {value!r}, not a number")
    return value
