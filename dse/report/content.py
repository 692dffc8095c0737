"""What a run's report shows, computed once for both of its pages and for a paper."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dse.candidate import Candidate
from dse.memory.model import MemoryModel
from dse.report.memory_plot import Panel
from dse.report.page import Section
from dse.report.sections import report_sections
from dse.report.selection import Shown, shown_candidate
from dse.results.importance import Importances, importances
from dse.results.records import RunRecords
from dse.step.plan_figures import PlanFigures

Models = Callable[[Candidate], MemoryModel]


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """What a report shows.

    Attributes:
        records: the run.
        models: returns a candidate's memory model, for the memory ledgers.
        sections: parts that show tables, in order.
        panels: networks whose memory over a step is shown.
        shown: the candidate that is compared with the unpruned network; None if there is none.
        picked: the candidate that was picked for a device; None if none was.
        found: importances of the dimensions.
        plan: the lean plan of the shown candidate; None without one.
    """

    records: RunRecords
    models: Models
    sections: Sequence[Section]
    panels: Sequence[Panel]
    shown: Shown | None
    picked: Candidate | None
    found: Importances
    plan: PlanFigures | None = None

    @property
    def highlighted(self) -> Shown | None:
        """The candidate that pictures mark with a star: the picked one."""
        return self.shown if self.picked is not None else None


def report_content(
    records: RunRecords,
    *,
    models: Models,
    picked: Candidate | None = None,
    plan: PlanFigures | None = None,
) -> ReportContent:
    """Compute what a run's report shows.

    Args:
        records: the run.
        models: returns a candidate's memory model.
        picked: the candidate to highlight; without one, the front's knee is compared with the
            unpruned network.
        plan: the lean plan of that candidate; None if stock PyTorch runs its steps, or it isn't
            known.

    Raises:
        RunError: if the picked candidate was never trained in this run.
    """
    shown = shown_candidate(records, picked=picked)
    found = importances(records)
    return ReportContent(
        records=records,
        models=models,
        sections=report_sections(records, picked=picked, found=found, shown=shown, plan=plan),
        panels=memory_panels(records, models, shown),
        shown=shown,
        picked=picked,
        found=found,
        plan=plan,
    )


def memory_panels(records: RunRecords, models: Models, shown: Shown | None) -> list[Panel]:
    """Return the memory over one step of the unpruned network and of the shown candidate."""
    entries = [("unpruned", Candidate())]
    if shown is not None:
        entries.append((shown.label, shown.candidate))
    panels = []
    for label, candidate in entries:
        model = models(candidate)
        kept = [candidate.channels.get(g.name, g.channels) for g in model.groups]
        batch_size = candidate.batch_size or records.study.training.batch_size
        timeline = model.timeline(kept, batch_size=batch_size)
        panels.append(Panel(label=label, timeline=timeline, recipe=candidate.recipe_text))
    return panels
