"""What the pictures of a report show, as tables: one CSV beside each picture."""

from collections.abc import Sequence

from dse.report.memory_plot import Panel, step_alone
from dse.report.ratios_plot import pruning_ratios
from dse.report.render import Cell, Row, Table
from dse.report.selection import baseline_hypervolume, front_trials, hypervolume_shares
from dse.results.candidate_records import FinalRecord
from dse.results.records import RunRecords

_FRONT = (
    "panel",
    "series",
    "label",
    "peak_bytes",
    "accuracy",
    "accuracy_std",
    "seeds",
    "recipe",
)


def front_data(records: RunRecords) -> Table:
    """Return every marker of the front: accuracies from 0 to 1, peaks in bytes.

    The panel `short` has accuracies on the selection part, `full` those on the validation part.
    Trials over every budget have no accuracy.
    """
    members = {trial.number for trial in front_trials(records)}
    rows: list[Row] = []
    for trial in records.trials:
        if trial.state not in ("complete", "infeasible"):
            continue
        series = "over budget" if trial.state == "infeasible" else "trial"
        rows.append(
            {
                "panel": "short",
                "series": "front" if trial.number in members else series,
                "label": f"trial {trial.number}",
                "peak_bytes": trial.peak_bytes,
                "accuracy": trial.accuracy,
                "seeds": len(trial.seeds) or None,
                "recipe": trial.candidate.recipe_text,
            }
        )
    rows += [
        {
            "panel": "short",
            "series": one.kind,
            "label": one.label,
            "peak_bytes": one.peak_bytes,
            "accuracy": one.accuracy,
            "recipe": one.candidate.recipe_text,
        }
        for one in records.baselines
    ]
    rows += [_final_row(final) for final in records.finals]
    return Table(name="front", fields=_FRONT, rows=rows)


def hypervolume_data(records: RunRecords) -> Table:
    """Return the hypervolume after each trial, as a share of the box, beside the baselines'."""
    alone = baseline_hypervolume(records)
    rows: list[Row] = [
        {
            "trial": trial.number,
            "state": trial.state,
            "hypervolume": float(share),
            "baselines_alone": alone,
        }
        for trial, share in zip(records.trials, hypervolume_shares(records), strict=True)
    ]
    fields = ("trial", "state", "hypervolume", "baselines_alone")
    return Table(name="hypervolume", fields=fields, rows=rows)


def ratios_data(records: RunRecords) -> Table:
    """Return the heat map: one row for each group, one column for each member of the front."""
    front = front_trials(records)
    names = [f"trial {trial.number}" for trial in front]
    rows: list[Row] = []
    for (group, channels), ratios in zip(
        records.groups, pruning_ratios(records, front), strict=True
    ):
        cells: dict[str, Cell] = {"group": group, "channels": channels}
        rows.append(cells | dict(zip(names, ratios.tolist(), strict=True)))
    return Table(name="ratios", fields=("group", "channels", *names), rows=rows)


def memory_data(panels: Sequence[Panel]) -> Table:
    """Return the bytes that each category holds at each moment of the steps."""
    rows: list[Row] = []
    for panel in panels:
        timeline = step_alone(panel.timeline)
        for moment, held in enumerate(timeline.bytes):
            cells: dict[str, Cell] = {
                "network": panel.label,
                "moment": moment,
                "phase": timeline.phases[moment],
                "operator": timeline.operators[moment],
                "module": timeline.modules[moment],
            }
            counts = zip(timeline.categories, held.tolist(), strict=True)
            rows.append(cells | {f"{name}_bytes": count for name, count in counts})
    return Table(name="memory", fields=tuple(rows[0]) if rows else (), rows=rows)


def _final_row(final: FinalRecord) -> Row:
    return {
        "panel": "full",
        "series": "finalist",
        "label": final.label,
        "peak_bytes": final.peak_bytes,
        "accuracy": final.validation_accuracy,
        "accuracy_std": final.validation_spread,
        "seeds": len(final.validation_accuracies),
        "recipe": final.candidate.recipe_text,
    }
