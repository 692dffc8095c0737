"""The paper's parts of one run."""

from collections.abc import Sequence
from pathlib import Path

from dse.candidate import Candidate
from dse.metrics import TITLES
from dse.report import wording
from dse.report.front_plot import front_figure
from dse.report.history_plot import history_figure
from dse.report.memory_plot import Panel, memory_figure
from dse.report.paper.method import method_paragraph
from dse.report.paper.package import PaperFiles, Plate, Sheet, write_package
from dse.report.paper.picture_data import (
    front_data,
    hypervolume_data,
    memory_data,
    ratios_data,
)
from dse.report.ratios_plot import ratios_figure
from dse.report.recalls_table import recalls_table
from dse.report.selection import shown_candidate
from dse.report.tables import baselines_table, finalists_table, front_table
from dse.report.wording import finalists_note, short_and_full
from dse.report.write import Models, memory_panels
from dse.results.records import RunRecords


def write_paper(
    records: RunRecords, *, models: Models, out: Path, picked: Candidate | None = None
) -> PaperFiles:
    """Write the paper's parts of a run.

    Args:
        records: the run.
        models: returns a candidate's memory model, for the plot of memory over a step.
        out: the folder; created if it doesn't exist.
        picked: the candidate to highlight; without one, the front's knee is compared with the
            unpruned network.

    Raises:
        RunError: if the picked candidate was never trained in this run.
    """
    return write_package(
        title=records.study.name,
        plates=_plates(records, models, picked),
        sheets=_sheets(records, picked),
        method=method_paragraph(records),
        out=out,
    )


def _plates(records: RunRecords, models: Models, picked: Candidate | None) -> list[Plate]:
    shown = shown_candidate(records, picked=picked)
    star = shown if picked is not None else None
    panels = memory_panels(records, models, shown)
    regime = f"{'; '.join(wording.origin(records)[1:])}."
    metric, title = TITLES[records.metric], wording.metric_title(records.metric)
    return [
        Plate(
            name="front",
            caption=f"{title} over the predicted peak memory of one training step. "
            f"{_panels(records)}Stepped line: best {metric} within each size. Dotted lines: "
            f"budgets. {regime}",
            draw=lambda width: front_figure(records, width=width, picked=star),
            data=lambda: front_data(records),
            wide=True,
        ),
        Plate(
            name="hypervolume",
            caption="Hypervolume of the search's front after each trial, as a share of the box "
            f"between the ideal point and the reference ({metric} by chance, costs of the unpruned "
            f"network). Dashed: the baselines alone. {regime}",
            draw=lambda width: history_figure(records, width=width),
            data=lambda: hypervolume_data(records),
        ),
        Plate(
            name="ratios",
            caption="Pruning ratio of each channel group (rows, in execution order) for each "
            f"member of the front (columns, by peak memory). {regime}",
            draw=lambda width: ratios_figure(records, width=width, picked=star),
            data=lambda: ratios_data(records),
        ),
        Plate(
            name="memory",
            caption=f"Predicted memory over one training step: {_networks(panels)}. Triangle: the "
            f"peak. {regime}",
            draw=lambda width: memory_figure(panels, caption=wording.origin(records), width=width),
            data=lambda: memory_data(panels),
            wide=True,
        ),
    ]


def _panels(records: RunRecords) -> str:
    """Describe the panels of the front."""
    proxy = records.study.proxy
    search = (
        f"Every candidate of the search after the short training "
        f"({wording.epochs(proxy.short_epochs)}, one seed), on the selection part. "
    )
    if not records.finals:
        return search
    return (
        f"Left: {search[0].lower()}{search[1:]}Right: finalists after the full training "
        f"({wording.epochs(proxy.full_epochs)}, {wording.final_seeds(records)}), on the validation "
        "part; bars: standard deviation over the seeds. "
    )


def _networks(panels: Sequence[Panel]) -> str:
    return " and ".join(panel.label for panel in panels)


def _sheets(records: RunRecords, picked: Candidate | None) -> list[Sheet]:
    recalls = recalls_table(records, picked=picked)
    found = [
        Sheet(
            table=front_table(records, picked=picked),
            caption="The front by peak memory, and the unpruned network. "
            f"{short_and_full(records)}",
        ),
        Sheet(table=finalists_table(records), caption=finalists_note(records)),
        Sheet(
            table=baselines_table(records),
            caption=f"Candidates that need no search. {short_and_full(records)}",
        ),
    ]
    if recalls is not None:
        found.append(
            Sheet(
                table=recalls,
                caption="Recall of each class on the validation part, as the mean over the seeds "
                "of each network fine-tuned in full.",
            )
        )
    return found
