"""Several searches side by side: attainment surfaces and hypervolumes at one reference point.

Everything is computed in the plane of peak memory and the study's metric, whatever further
objectives a search had.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.errors import RunError
from dse.names import TrainedFidelity
from dse.results.attainment import attainment_surface
from dse.results.comparable import cautions, check_comparable
from dse.results.front import hypervolume, hypervolume_history
from dse.results.grouping import Group
from dse.results.records import RunRecords
from dse.results.seeds import mean_interval, ratio_interval

_MAXIMISE = (False, True)  # peak memory, accuracy
_FEWEST_FOR_QUARTILES = 4
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over the runs of a group.

    Attributes:
        mean: the mean.
        interval: its 95 % confidence interval; None if none exists.
    """

    mean: float
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, values: Floats) -> "Estimate":
        """Estimate the mean of one value per run."""
        return cls(mean=float(values.mean()), interval=mean_interval(values.tolist()))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Groups of runs whose figures may stand side by side.

    Attributes:
        groups: the groups; others are compared with the first.
        fidelity: `short`: every candidate of the search, on the selection part; `full`: the
            search's finalists, on the validation part.
        reference_peak_bytes: peak memory of the reference point of all hypervolumes.
        notes: what a reader should know, one line each.
    """

    groups: tuple[Group, ...]
    fidelity: TrainedFidelity
    reference_peak_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def runs(self) -> tuple[RunRecords, ...]:
        """The runs of all groups."""
        return tuple(run for group in self.groups for run in group.runs)

    @property
    def chance(self) -> float:
        """The metric by chance, which is the accuracy of the reference point."""
        return self.runs[0].reference["accuracy"]

    @property
    def budgets(self) -> tuple[int, ...]:
        """The budgets that all runs share, in bytes."""
        shared = set.intersection(*(set(run.study.search.budget_bytes) for run in self.runs))
        return tuple(sorted(shared))

    @property
    def band_percents(self) -> tuple[float, float]:
        """Shares of the runs that attain the band's upper and lower edge, in percent.

        Quartiles if every group has at least four runs, otherwise the best and the worst run.
        """
        fewest = min(len(group.runs) for group in self.groups)
        return (25.0, 75.0) if fewest >= _FEWEST_FOR_QUARTILES else (0.0, 100.0)

    def surface(self, group: Group, *, percent: float) -> Floats:
        """Return corners of an attainment surface: peak bytes and accuracy, (corners, 2)."""
        fronts = [points_of(run, fidelity=self.fidelity) for run in group.runs]
        return attainment_surface(fronts, percent=percent, maximise=_MAXIMISE)

    def hypervolumes(self, group: Group) -> Floats:
        """Return each run's hypervolume as a share of the box, (runs,).

        The box reaches from the reference point (chance, `reference_peak_bytes`) to the ideal
        (accuracy 1, no memory).
        """
        return np.array(
            [
                hypervolume(
                    self._scaled(points_of(run, fidelity=self.fidelity)),
                    reference=(1.0, 0.0),
                    maximise=_MAXIMISE,
                )
                for run in group.runs
            ]
        )

    def hypervolume(self, group: Group) -> Estimate:
        """Return the mean hypervolume of a group's runs."""
        return Estimate.of(self.hypervolumes(group))

    def ratio(self, group: Group) -> Estimate | None:
        """Return the mean hypervolume over the first group's; None for that group itself."""
        first = self.groups[0]
        if group is first:
            return None
        ours, theirs = self.hypervolumes(group), self.hypervolumes(first)
        if not theirs.mean():
            return None
        return Estimate(
            mean=float(ours.mean() / theirs.mean()),
            interval=ratio_interval(ours.tolist(), theirs.tolist()),
        )

    def histories(self, group: Group) -> Floats:
        """Return hypervolumes at `short` after each trained candidate, (runs, candidates).

        Candidates that were stopped at their rung count as trained. Longer runs are cut to the
        length of the group's shortest.
        """
        found = [self._history(run) for run in group.runs]
        length = min(map(len, found))
        return np.array([one[:length] for one in found])

    def best_within(self, group: Group, size_bytes: int) -> Floats:
        """Return each run's best accuracy within a size, (runs,); NaN where nothing fits."""
        best = []
        for run in group.runs:
            points = points_of(run, fidelity=self.fidelity)
            fitting = points[points[:, 0] <= size_bytes]
            best.append(fitting[:, 1].max() if len(fitting) else np.nan)
        return np.array(best)

    def _history(self, run: RunRecords) -> Floats:
        trained = run.trained
        rows = [(one.peak_bytes, one.accuracy) for one in trained if one.accuracy is not None]
        points = self._scaled(np.array(rows, dtype=np.float64).reshape(-1, 2))
        volumes = hypervolume_history(points, reference=(1.0, 0.0), maximise=_MAXIMISE)
        done = np.cumsum([one.state == "complete" for one in trained])
        return np.asarray(np.concatenate([[0.0], volumes])[done])

    def _scaled(self, points: Floats) -> Floats:
        """Return points in units of the box."""
        low = np.array([0.0, self.chance])
        high = np.array([float(self.reference_peak_bytes), 1.0])
        return np.asarray((points - low) / (high - low))


def points_of(run: RunRecords, *, fidelity: TrainedFidelity) -> Floats:
    """Return what a run's search found: peak bytes and accuracy, (points, 2).

    At `full` these are the candidates of the search that were trained in full, with their means on
    the validation part; baselines count only if the search entered them as trials.
    """
    if fidelity == "short":
        rows = [(one.peak_bytes, one.accuracy) for one in run.complete]
    else:
        own = {one.candidate.digest for one in run.complete}
        found = [one for one in run.finals if one.candidate.digest in own]
        rows = [(one.peak_bytes, one.validation_accuracy) for one in found]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def compare(
    groups: Sequence[Group],
    *,
    fidelity: TrainedFidelity = "short",
    reference_peak_bytes: int | None = None,
) -> Comparison:
    """Put runs side by side.

    Args:
        groups: the runs; at least two in all.
        fidelity: see `Comparison`.
        reference_peak_bytes: peak memory of the reference point; None takes the largest peak of
            the unpruned networks.

    Raises:
        RunError: if there are fewer than two runs, one is given twice or has nothing trained at
            the fidelity, their data, network, metric or memory convention differ, or the reference
            point needs no memory.
    """
    if reference_peak_bytes is not None and reference_peak_bytes <= 0:
        raise RunError(f"the reference point needs {reference_peak_bytes} bytes: give 1 or more")
    runs = [run for group in groups for run in group.runs]
    if len(runs) < 2:  # noqa: PLR2004  # nothing to compare with
        raise RunError("a comparison needs at least two runs: name more run folders")
    places = [run.folder.resolve() for run in runs]
    for run, place in zip(runs, places, strict=True):
        if places.count(place) > 1:
            raise RunError(f"{run.folder} is given twice: leave one out")
        if not len(points_of(run, fidelity=fidelity)):
            raise RunError(_nothing(run, fidelity))
    check_comparable(runs, fidelity=fidelity)
    largest = max(run.unpruned_peak_bytes for run in runs)
    return Comparison(
        groups=tuple(groups),
        fidelity=fidelity,
        reference_peak_bytes=largest if reference_peak_bytes is None else reference_peak_bytes,
        notes=cautions(groups),
    )


def _nothing(run: RunRecords, fidelity: TrainedFidelity) -> str:
    if fidelity == "full" and run.complete:
        return (
            f"{run.folder} has no candidate of its search trained in full yet: continue its run, "
            "or compare at short"
        )
    return f"{run.folder} has trained no candidate yet: continue its run, or leave it out"
