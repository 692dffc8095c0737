"""The report's page of a made-up run, also with hostile text in it."""

from dataclasses import replace
from pathlib import Path

from dse.candidate import Candidate
from dse.config import Study
from dse.memory.model import MemoryModel
from dse.report.content import report_content
from dse.report.html.page import html_page
from dse.results.records import RunRecords
from dse.step.plan_figures import PlanFigures
from support.runs import MIB, make_records, make_study

# Ends a script element, a string and a tag, and starts a template's expression.
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{ 7*7 }}\u202e"


def run_over(
    model: MemoryModel, *, trials: int = 14, finals: int = 3, study: Study | None = None
) -> RunRecords:
    return make_records(
        trials=trials,
        finals=finals,
        baselines=trials > 0,
        groups=tuple((group.name, group.channels) for group in model.groups),
        peak=lambda kept: int(model.peaks(list(kept), batch_size=32)),
        study=study or make_study(budgets=(MIB, 2 * MIB)),
        images=dict.fromkeys("56789", 20),
    )


def page_of(
    records: RunRecords,
    model: MemoryModel,
    *,
    picked: Candidate | None = None,
    plan: PlanFigures | None = None,
) -> str:
    def models(_candidate: Candidate) -> MemoryModel:
        return model

    return html_page(report_content(records, models=models, picked=picked, plan=plan))


def hostile(records: RunRecords) -> RunRecords:
    """The same run with hostile text wherever a user or a network can put any."""
    study = records.study.model_copy(
        update={
            "name": HOSTILE,
            "description": HOSTILE,
            "network": records.study.network.model_copy(update={"name": HOSTILE}),
            "data": records.study.data.model_copy(
                update={"name": HOSTILE, "labels": (HOSTILE, "b")}
            ),
        }
    )
    data = records.data
    assert data is not None
    named = data.model_copy(update={"name": HOSTILE, "labels": (HOSTILE, *(data.labels or ())[1:])})
    first, *others = records.baselines
    return replace(
        records,
        study=study,
        folder=Path("runs") / "a</script>b",
        data=named,
        groups=tuple((f"{HOSTILE}{name}", full) for name, full in records.groups),
        baselines=(first, *(replace(one, label=HOSTILE) for one in others)),
        versions={"dse": HOSTILE, HOSTILE: "1"},
    )
