"""The parts of a run's report that show tables."""

from dse.candidate import Candidate
from dse.report.budget_wording import budget_notes
from dse.report.page import Section
from dse.report.plan_table import plan_note, plan_table
from dse.report.recalls_table import recalls_table
from dse.report.repeats_table import repeats_note, repeats_table
from dse.report.search_tables import (
    fidelity_note,
    fidelity_table,
    importance_note,
    importance_table,
)
from dse.report.selection import Shown
from dse.report.tables import baselines_table, finalists_table, front_table, trials_table
from dse.report.wording import finalists_note, short_and_full
from dse.results.importance import Importances
from dse.results.records import RunRecords
from dse.step.plan_figures import PlanFigures


def report_sections(
    records: RunRecords,
    *,
    picked: Candidate | None,
    found: Importances,
    shown: Shown | None,
    plan: PlanFigures | None,
) -> list[Section]:
    """Return the parts of the report that show tables, in order.

    Args:
        records: the run.
        picked: the candidate that was picked for a device.
        found: importances of the dimensions.
        shown: the candidate that the plan belongs to.
        plan: its lean plan; None without one.
    """
    return [
        Section(
            name="front",
            title="The front as a table",
            text="Members by peak memory, and the unpruned network. *Fits* is the smallest budget "
            "that a candidate fits. " + short_and_full(records),
            table=front_table(records, picked=picked),
        ),
        Section(
            name="finalists",
            title="Finalists",
            text=" ".join([finalists_note(records), *budget_notes(records)]),
            table=finalists_table(records),
        ),
        *_repeats(records),
        *_recalls(records, picked),
        Section(
            name="baselines",
            title="Baselines",
            text="Candidates that need no search.",
            table=baselines_table(records),
        ),
        *_plan(plan, shown),
        Section(
            name="importance",
            title="Importance of the dimensions",
            text=importance_note(found, metric=records.metric),
            table=importance_table(found),
        ),
        Section(
            name="fidelity",
            title="Short against full training, at similar memory",
            text=fidelity_note(records),
            table=fidelity_table(records),
        ),
        Section(
            name="trials",
            title="All trials",
            text="Every detail of every trial, as CSV only.",
            table=trials_table(records),
        ),
    ]


def _plan(plan: PlanFigures | None, shown: Shown | None) -> list[Section]:
    if plan is None or shown is None:
        return []
    note = plan_note(plan, label=shown.label)
    return [Section(name="plan", title="Plan of the lean step", text=note, table=plan_table(plan))]


def _repeats(records: RunRecords) -> list[Section]:
    if (table := repeats_table(records)) is None:
        return []
    return [
        Section(
            name="repeats",
            title="Scored again before finalists were chosen",
            text=repeats_note(records),
            table=table,
        )
    ]


def _recalls(records: RunRecords, picked: Candidate | None) -> list[Section]:
    table = recalls_table(records, picked=picked)
    if table is None:
        return []
    text = (
        "Recall: the share of a class's validation images classified correctly, as the mean over "
        "the seeds of each network fine-tuned in full. Classes with the lowest recall come first."
    )
    if len(table.shown) < len(table.rows):
        text += f" Shown are {len(table.shown)} of {len(table.rows)} classes; recalls.csv has all."
    return [Section(name="recalls", title="Recall of each class", text=text, table=table)]
