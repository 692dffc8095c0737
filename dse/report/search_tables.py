"""Tables about the search itself: importance of its dimensions, and agreement of fidelities."""

from dse.measures import measure_of
from dse.report.render import NOTHING, Column, Row, Table
from dse.report.wording import decimals, mib
from dse.results.fidelity import Band, bands, rank_correlation, trained_at_both
from dse.results.importance import FEWEST_TRIALS, Importances
from dse.results.records import RunRecords

MOST_SHOWN = 15
"""Maximum number of dimensions in Markdown and LaTeX; the CSV has all."""


def importance_table(found: Importances) -> Table | None:
    """Build the table of importances, largest first; None if there are none."""
    if not found.predictive:
        return None
    rows: list[Row] = [
        {"dimension": one.name, "importance": one.mean, "importance_std": one.spread}
        for one in found.dimensions
    ]
    return Table(
        name="importance",
        fields=list(rows[0]),
        rows=rows,
        columns=[
            Column(title="Dimension", show=lambda row: str(row["dimension"]), align="left"),
            Column(title="Importance (points)", show=_points),
        ],
        most_shown=MOST_SHOWN,
    )


def importance_note(found: Importances, *, metric: str) -> str:
    """Explain how importances are estimated, or why there are none."""
    title = measure_of(metric).title
    if not found.dimensions:
        return (
            f"Not estimated: it takes {FEWEST_TRIALS} complete trials that differ in their "
            f"dimensions and in {title}, and there are {found.trials}."
        )
    part = f"{found.used} of {found.trials}" if found.used < found.trials else f"{found.trials}"
    fit = f"R² {found.explained:.2f} over {part} trials"
    if not found.predictive:
        return (
            f"Not shown: a random forest predicts the {title} of trials that it wasn't fitted to "
            f"no better than their mean ({fit}), so that importances would be noise."
        )
    return (
        f"By how many points the error of a prediction of {title} (short) grows when one "
        "dimension is shuffled among trials, ± the standard deviation over folds and shuffles. "
        f"The prediction is a random forest's, for trials that it wasn't fitted to ({fit}). "
        "Dimensions that vary together share their importance; those of about 0 aren't "
        "distinguishable from noise."
    )


def fidelity_table(records: RunRecords) -> Table | None:
    """Build the table of bands of similar memory; None if nothing was trained at both."""
    found = bands(trained_at_both(records))
    if not found:
        return None
    rows: list[Row] = [
        {
            "low_bytes": round(band.low_bytes),
            "high_bytes": round(band.high_bytes),
            "candidates": len(band.members),
            "pairs_alike": band.alike,
            "pairs_unlike": band.unlike,
            "kendall_tau": band.tau,
            "labels": ", ".join(one.label for one in band.members),
        }
        for band in found
    ]
    return Table(
        name="fidelity",
        fields=list(rows[0]),
        rows=rows,
        columns=[
            Column(title="Peak (MiB)", show=lambda row: _span(row, found), align="left"),
            Column(title="Candidates", show=lambda row: str(row["labels"]), align="left"),
            Column(
                title="Pairs ordered alike",
                show=lambda row: f"{row['pairs_alike']} of {_pairs(row)}",
            ),
            Column(title="Kendall's tau", show=_tau),
        ],
    )


def fidelity_note(records: RunRecords) -> str:
    """Explain why fidelities are compared within bands, and how far memory alone ranks."""
    both = trained_at_both(records)
    text = (
        "Candidates trained at both fidelities, in bands from a peak to half of it, on the "
        "selection part. Along a front, size alone ranks candidates well; only within a band does "
        "the order show what the short training adds. Ties count as neither order."
    )
    whole = rank_correlation([one.short for one in both], [one.full for one in both])
    size = rank_correlation([one.peak_bytes for one in both], [one.full for one in both])
    if whole is None or size is None:
        return text
    return (
        f"{text} Over all {len(both)}, Kendall's tau with the full training is {whole:.2f} for the "
        f"short one, and {size:.2f} for peak memory alone."
    )


def _points(row: Row) -> str:
    mean, spread = _number(row["importance"]), _number(row["importance_std"])
    return f"{100 * mean:.2f} ± {100 * spread:.2f}".replace("-", "\N{MINUS SIGN}")


def _span(row: Row, found: tuple[Band, ...]) -> str:
    places = decimals([mib(band.low_bytes) for band in found])
    low, high = mib(_number(row["low_bytes"])), mib(_number(row["high_bytes"]))
    return f"{low:.{places}f} to {high:.{places}f}"


def _pairs(row: Row) -> int:
    count = int(_number(row["candidates"]))
    return count * (count - 1) // 2


def _tau(row: Row) -> str:
    tau = row["kendall_tau"]
    return NOTHING if tau is None else f"{_number(tau):.2f}".replace("-", "\N{MINUS SIGN}")


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return value
