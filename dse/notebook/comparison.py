"""A comparison of runs for notebooks: a frame of its groups, and its figures on axes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from matplotlib.axes import Axes

from dse.names import TrainedFidelity
from dse.notebook.axes import plotted
from dse.notebook.run import Run
from dse.report.compare_plot import (
    attainment_caption,
    draw_attainment,
    draw_hypervolume,
    hypervolume_caption,
)
from dse.report.compare_tables import groups_table, runs_table
from dse.report.legend import add_axes_legend
from dse.report.render import Table
from dse.results.comparison import Comparison, compare
from dse.results.grouping import Group, grouped

_HEIGHT_INCHES = 4.0


def compare_runs(
    runs: Sequence[Run] | Mapping[str, Sequence[Run]],
    *,
    fidelity: TrainedFidelity = "short",
    reference_peak_bytes: int | None = None,
) -> "RunComparison":
    """Put runs side by side: attainment surfaces, and hypervolumes at one reference point.

    Args:
        runs: runs that `open_run` returned, by the name of their method; without names, runs whose
            studies differ in nothing but their seed form a group.
        fidelity: `short` compares every candidate, on the selection part; `full` the finalists,
            on the validation part.
        reference_peak_bytes: peak memory of the reference point; the unpruned network's if None.

    Raises:
        RunError: if there are fewer than two runs, one is given twice or has nothing trained at
            the fidelity, or their data, network, metric or memory convention differ.
    """
    if isinstance(runs, Mapping):
        groups: Sequence[Group] = [
            Group(label=name, runs=tuple(one.records for one in members))
            for name, members in runs.items()
            if members
        ]
    else:
        groups = grouped([one.records for one in runs])
    return RunComparison(
        compare(groups, fidelity=fidelity, reference_peak_bytes=reference_peak_bytes)
    )


@dataclass(frozen=True)
class RunComparison:
    """Runs side by side, also as pandas frames and plots.

    Attributes:
        comparison: the groups, their surfaces and hypervolumes as plain data.
    """

    comparison: Comparison

    @cached_property
    def groups(self) -> pd.DataFrame:
        """One row for each method: hypervolume and its interval, best accuracy within budgets."""
        return _frame(groups_table(self.comparison), index="label")

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row for each run."""
        return _frame(runs_table(self.comparison), index="run")

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know before comparing, one line each."""
        return self.comparison.notes

    def plot_attainment(self, ax: Axes | None = None) -> Axes:
        """Plot each method's median attainment surface with a band over its runs.

        Args:
            ax: axes to draw into; new ones if None.
        """
        return self._plotted(draw_attainment, ax, caption=attainment_caption(self.comparison))

    def plot_hypervolume(self, ax: Axes | None = None) -> Axes:
        """Plot each method's mean hypervolume over the candidates trained, with its interval.

        Args:
            ax: axes to draw into; new ones if None.
        """
        return self._plotted(draw_hypervolume, ax, caption=hypervolume_caption(self.comparison))

    def _plotted(
        self, draw: Callable[[Axes, Comparison], None], ax: Axes | None, *, caption: Sequence[str]
    ) -> Axes:
        def draw_with_legend(axes: Axes) -> bool:
            draw(axes, self.comparison)
            add_axes_legend(axes)
            return True

        return plotted(draw_with_legend, ax, caption=caption, height_inches=_HEIGHT_INCHES)

    def __repr__(self) -> str:
        counts = ", ".join(f"{one.label}: {len(one.runs)}" for one in self.comparison.groups)
        return f"RunComparison({counts})"

    def _repr_html_(self) -> str:
        return str(self.groups.to_html(escape=True))


def _frame(table: Table, *, index: str) -> pd.DataFrame:
    return pd.DataFrame(list(table.rows), columns=list(table.fields)).set_index(index)
