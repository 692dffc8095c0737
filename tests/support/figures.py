"""A network's metrics, made up."""

from dse.metrics import Confusion
from dse.names import TASK_METRICS
from dse.tasks.task import Figures


def figures_of(confusion: Confusion) -> Figures:
    """Return the metrics of a classification with this confusion matrix."""
    names = TASK_METRICS["classification"]
    return Figures(values={name: confusion.score(name) for name in names}, confusion=confusion)
