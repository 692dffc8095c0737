"""What each picture of a report shows, in words."""

from collections.abc import Sequence

from dse.report.memory_plot import Panel
from dse.report.wording import metric_title
from dse.results.records import RunRecords

LETTERS = "A letter marks a recipe that differs from the study's; the key is below the panels."
RATIOS = (
    "One row for each channel group in execution order, one column for each member of the front "
    "by peak memory. The darker a cell, the more of the group is pruned."
)
STAR = "A star marks the picked candidate."
TRIANGLE = (
    "The triangle marks the peak; the line under each title says in which operator and module it "
    "happens."
)


def front(records: RunRecords) -> str:
    """Describe the front's panels."""
    metric = records.measure.title
    return (
        f"{metric_title(records.measure)} over predicted peak memory. One panel shows the search: "
        "every candidate after the short training, on the selection part. The stepped line is the "
        f"best {metric} that the search found within each size; the dashed curve prunes every "
        "group by one ratio. The other panel shows the best of these candidates trained in full, "
        "on the validation part, with the standard deviation over seeds as bars. Longer training "
        "raises the figures, so the panels have scales of their own. Dotted lines are the budgets."
    )


def hypervolume(records: RunRecords) -> str:
    """Describe the plot of the hypervolume."""
    return (
        "Hypervolume that the search's front dominates after each trial, as a share of the box "
        f"between the ideal point and the reference ({records.measure.title} by chance, costs of "
        "the unpruned network). Dashed: the same for the baselines alone."
    )


def memory(panels: Sequence[Panel]) -> str:
    """Describe the plot of memory over a step."""
    networks = "; ".join(panel.label for panel in panels)
    return f"Predicted bytes held, moment by moment: {networks}."
