"""A short summary of a run as HTML, which notebooks show for it."""

from html import escape

from dse.report.selection import front_trials, hypervolume_shares, knee_trial
from dse.results.candidate_records import TrialRecord
from dse.results.records import RunRecords
from dse.units import format_size


def summary_html(records: RunRecords) -> str:
    """Return a small table; text that users wrote is escaped."""
    rows = "".join(
        f'<tr><th style="text-align: left">{escape(name)}</th>'
        f'<td style="text-align: left">{escape(value)}</td></tr>'
        for name, value in summary_rows(records)
    )
    return f"<table><caption>{escape(str(records.folder))}</caption>{rows}</table>"


def summary_rows(records: RunRecords) -> list[tuple[str, str]]:
    """Return names and values of what the summary shows."""
    study = records.study
    states = [f"{count} {state}" for state, count in records.trials_by_state.items() if count]
    rows = [
        ("study", study.name),
        ("network", f"{study.network.name}, {len(records.groups)} channel groups"),
        ("data", f"{study.data.name}, {records.outputs_text}"),
        ("budgets", ", ".join(format_size(size) for size in study.search.budget_bytes)),
        (
            "unpruned",
            f"{format_size(records.unpruned_peak_bytes)} (convention {records.convention})",
        ),
        ("trials", ", ".join(states) or "none yet"),
    ]
    front = front_trials(records)
    if not front:
        return rows
    low, high = front[0].peak_bytes, front[-1].peak_bytes
    best = max(front, key=lambda one: one.accuracy or 0.0)
    rows += [
        ("front", f"{len(front)} trials, {format_size(low)} to {format_size(high)}"),
        ("best", _described(records, best)),
    ]
    bend = knee_trial(records)
    if bend is not None:
        rows.append(("knee", _described(records, bend)))
    share = 100 * float(hypervolume_shares(records)[-1])
    rows += [
        ("hypervolume", f"{share:.1f} % of the box"),
        ("trained in full", f"{len(records.finals)} candidates"),
    ]
    return rows


def _described(records: RunRecords, trial: TrialRecord) -> str:
    measure = records.measure
    return (
        f"trial {trial.number}: {measure.title} {measure.text(trial.accuracy or 0.0)} after the "
        f"short training, {format_size(trial.peak_bytes)}"
    )
