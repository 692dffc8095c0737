"""A run for notebooks: its records as frames, and the report's plots on axes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from dse.candidate import Candidate
from dse.notebook.axes import plotted
from dse.notebook.frames import baselines_frame, finals_frame, front_frame, trials_frame
from dse.notebook.summary import summary_html
from dse.report import wording
from dse.report.front_plot import Panel, draw_front
from dse.report.history_plot import draw_history
from dse.report.legend import add_axes_legend
from dse.report.ratios_plot import Room, draw_ratios, rows_height_inches
from dse.report.selection import Shown, shown_candidate
from dse.report.style import POINTS_PER_INCH
from dse.results.records import RunRecords
from dse.search.load import load_run

_HEIGHT_INCHES = 4.0
_NAMES_SHARE = 0.5  # width of the heat map's row names, as a share of the axes' width


def open_run(path: str | Path, *, trust: bool = False) -> "Run":
    """Open a run folder, during the run or afterwards; nothing in it is changed.

    Args:
        path: a run folder, as `dse run` writes it.
        trust: read another storage that a run from elsewhere names.

    Returns:
        The run as it is now; open it again to see what a running search has added.

    Raises:
        RunError: if the folder holds no run, or its storage can't be read.
    """
    return Run(load_run(Path(path), trust=trust))


@dataclass(frozen=True)
class Run:
    """A run: its records, also as pandas frames and plots.

    Attributes:
        records: all results as plain data.
    """

    records: RunRecords

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row for each trial, by number (see `dse.notebook.frames.trials_frame`)."""
        return trials_frame(self.records)

    @cached_property
    def front(self) -> pd.DataFrame:
        """The trials on the front, smallest peak first."""
        return front_frame(self.records)

    @cached_property
    def finals(self) -> pd.DataFrame:
        """What was fine-tuned in full, smallest peak first."""
        return finals_frame(self.records)

    @cached_property
    def baselines(self) -> pd.DataFrame:
        """The baselines, the unpruned network first."""
        return baselines_frame(self.records)

    def candidate(self, number: int) -> Candidate:
        """Return the candidate of a trial.

        Raises:
            RunError: if the run has no such trial.
        """
        return self.records.trial(number).candidate

    def plot_front(
        self, ax: Axes | None = None, *, fidelity: Panel = "short", picked: int | None = None
    ) -> Axes:
        """Plot accuracy over peak memory: trials, front, baselines and budgets.

        Args:
            ax: axes to draw into; new ones if None.
            fidelity: `short` for the search, `full` for what was trained in full.
            picked: number of a trial to mark with a star.

        Raises:
            RunError: if there is nothing to plot yet, or no such trial.
        """
        shown = self._shown(picked)
        return self._plotted(
            lambda axes: draw_front(axes, self.records, kind=fidelity, picked=shown),
            ax,
            height_inches=_HEIGHT_INCHES,
            missing="nothing has been trained in full yet"
            if fidelity == "full"
            else "no trial and no baseline is there yet",
        )

    def plot_history(self, ax: Axes | None = None) -> Axes:
        """Plot the hypervolume after each trial, with that of the baselines.

        Args:
            ax: axes to draw into; new ones if None.

        Raises:
            RunError: if no trial is complete yet.
        """

        def draw(axes: Axes) -> bool:
            drawn = draw_history(axes, self.records)
            if drawn:
                add_axes_legend(axes)
            return drawn

        return self._plotted(
            draw, ax, height_inches=_HEIGHT_INCHES, missing="no trial is complete yet"
        )

    def plot_ratios(self, ax: Axes | None = None, *, picked: int | None = None) -> Axes:
        """Plot the pruning ratio of each channel group for each member of the front.

        Args:
            ax: axes to draw into; new ones if None.
            picked: number of a trial whose column is marked.

        Raises:
            RunError: if there is no front yet, nothing can be pruned, or there is no such trial.
        """
        shown = self._shown(picked)
        return self._plotted(
            lambda axes: draw_ratios(axes, self.records, picked=shown, room=_room(axes)),
            ax,
            height_inches=rows_height_inches(self.records) + _HEIGHT_INCHES / 2,
            missing="no trial is complete yet, or the network has no channel groups",
        )

    def __repr__(self) -> str:
        records = self.records
        return f"Run({str(records.folder)!r}: {len(records.complete)} complete trials)"

    def _repr_html_(self) -> str:
        return summary_html(self.records)

    def _shown(self, number: int | None) -> Shown | None:
        if number is None:
            return None
        return shown_candidate(self.records, picked=self.records.trial(number).candidate)

    def _plotted(
        self, draw: Callable[[Axes], bool], ax: Axes | None, *, height_inches: float, missing: str
    ) -> Axes:
        caption = [*wording.origin(self.records), wording.seeds(self.records)]
        return plotted(draw, ax, caption=caption, height_inches=height_inches, missing=missing)


def _room(axes: Axes) -> Room:
    """Return the room for texts that axes of this size leave."""
    figure = axes.get_figure(root=True)
    scale = POINTS_PER_INCH / (figure.dpi if figure is not None else POINTS_PER_INCH)
    extent = axes.get_window_extent()
    return Room(
        names_points=_NAMES_SHARE * extent.width * scale,
        columns_points=0.8 * extent.width * scale,
        rows_points=extent.height * scale,
    )
