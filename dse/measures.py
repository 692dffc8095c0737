"""What the metrics are called, and how their scores are written.

Everywhere in the package a score is a metric brought to one scale: 1 is ideal, 0 is worth nothing,
and larger is better. A metric that is a share, such as the accuracy, is its own score.
"""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A metric, how it becomes a score, and how scores are written in its own unit.

    Attributes:
        title: name in tables, on axes and inside sentences.
        short_title: short name for column heads.
        percent: whether its values are shares, written in percent.
        worthless: its value that is worth nothing, whose score is 0.
        ideal: its best value, whose score is 1; smaller than `worthless` for an error.
    """

    title: str
    short_title: str
    percent: bool = True
    worthless: float = 0.0
    ideal: float = 1.0

    @property
    def is_error(self) -> bool:
        """Whether smaller values are better."""
        return self.ideal < self.worthless

    @property
    def unit(self) -> str:
        """Unit for axes and column heads, with a space before it: " (%)" or nothing."""
        return " (%)" if self.percent else ""

    @property
    def decimals(self) -> int:
        """Number of decimals: 0.1 % of a share, or a thousandth of the metric's range."""
        if self.percent:
            return 1
        return min(9, max(0, 3 - math.floor(math.log10(abs(self.ideal - self.worthless)))))

    def score(self, value: float) -> float:
        """Return the score of a value of the metric."""
        return (value - self.worthless) / (self.ideal - self.worthless)

    def value(self, score: float) -> float:
        """Return the value of the metric that has a score."""
        return self.worthless + score * (self.ideal - self.worthless)

    def shown(self, score: float) -> float:
        """Return the number to write or draw for a score: percent of a share, else the value."""
        return 100 * self.value(score) if self.percent else self.value(score)

    def shown_spread(self, spread: float) -> float:
        """Return the number to write for a standard deviation of scores."""
        return (100 if self.percent else 1) * spread * abs(self.ideal - self.worthless)

    def number(self, score: float) -> str:
        """Return a score in the metric's own unit, without that."""
        return f"{self.shown(score):.{self.decimals}f}"

    def spread_number(self, spread: float) -> str:
        """Return a standard deviation of scores in the metric's own unit, without that."""
        return f"{self.shown_spread(spread):.{self.decimals}f}"

    def text(self, score: float) -> str:
        """Return a score in the metric's own unit, such as "91.3 %"."""
        return f"{self.number(score)} %" if self.percent else self.number(score)

    def interval_text(self, low: float, high: float) -> str:
        """Return an interval of scores, such as "90.1 to 92.0 %", its smaller end first."""
        first, last = sorted((low, high), key=self.shown)
        return f"{self.number(first)} to {self.text(last)}"


_MEASURES: dict[str, Measure] = {
    "accuracy": Measure(title="accuracy", short_title="Acc."),
    "balanced-accuracy": Measure(title="balanced accuracy", short_title="Bal. acc."),
    "macro-f1": Measure(title="macro F1", short_title="Macro F1"),
    "mean-average-precision": Measure(title="mean average precision", short_title="mAP"),
    "label-f1": Measure(title="F1 of the labels", short_title="Label F1"),
    "r2": Measure(title="R²", short_title="R²", percent=False),
    "mae": Measure(title="mean absolute error", short_title="MAE", percent=False),
    "rmse": Measure(title="root mean squared error", short_title="RMSE", percent=False),
    "mean-iou": Measure(title="mean IoU", short_title="mIoU"),
    "pixel-accuracy": Measure(title="pixel accuracy", short_title="Pixel acc."),
}
ERRORS = ("mae", "rmse")
"""Metrics whose worthless value is that of always predicting the mean of the training data."""


def measure_of(metric: str, ends: tuple[float, float] | None = None) -> Measure:
    """Return how a metric's scores are written.

    Args:
        metric: its name, or that of a user's factory.
        ends: its values that are worth nothing and everything. Without them, scores of an error are
            written as they are.
    """
    _, _, own = metric.rpartition(":")
    plain = own.replace("_", " ")
    known = _MEASURES.get(metric) or Measure(title=plain, short_title=plain, percent=False)
    if ends is not None:
        return replace(known, worthless=ends[0], ideal=ends[1])
    return replace(known, title=f"score by {known.title}") if metric in ERRORS else known


_OBJECTIVES = {
    "peak_bytes": "peak (bytes)",
    "inference_peak_bytes": "inference peak (bytes)",
    "parameters": "parameters",
    "macs_forward": "multiply-adds (forward)",
}


def objective_title(objective: str, *, metric: str) -> str:
    """Return the name of an objective for tables and axes, with its unit.

    Args:
        objective: as in `search.objectives`.
        metric: the metric of the objective "accuracy".
    """
    if objective == "accuracy":
        return measure_of(metric).title
    return _OBJECTIVES.get(objective, objective)
