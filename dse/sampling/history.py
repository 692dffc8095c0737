"""The candidates that were evaluated, as arrays, and the one to train next."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dse.sampling.relax import Counts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_LEARNED = 500
"""Number of evaluated candidates, those nearest to the target, that one draw learns from."""

_SAME = 0.004  # difference of logarithms that are the same when rounded to three digits


class Proposal(NamedTuple):
    """A candidate to train.

    Attributes:
        kept: Channels of each group.
        recipe: Number of its recipe.
        shifts: Logarithms of its continuous values over the recipe's own.
    """

    kept: tuple[int, ...]
    recipe: int
    shifts: tuple[float, ...]


@dataclass(frozen=True)
class History:
    """The candidates evaluated so far.

    Attributes:
        kept: Channels kept, shape (n, groups).
        peaks: Peak bytes, shape (n,).
        accuracies: Accuracies from 0 to 1, shape (n,).
        recipes: Numbers of their recipes, shape (n,).
        shifts: Logarithms of their continuous values over the recipes' own, shape (n, ranges).
    """

    kept: Counts
    peaks: Ints
    accuracies: Floats
    recipes: Ints
    shifts: Floats

    @classmethod
    def of(
        cls, kept: Counts, peaks: Ints, accuracies: Floats, recipes: Ints | None = None
    ) -> "History":
        """Build a history whose recipes have their own continuous values.

        Args:
            kept: Channels kept, shape (n, groups).
            peaks: Peak bytes, shape (n,).
            accuracies: Accuracies from 0 to 1, shape (n,).
            recipes: Numbers of their recipes, shape (n,); None for the study's own.
        """
        numbers = np.zeros(len(kept), dtype=np.int64) if recipes is None else recipes
        return cls(kept, peaks, accuracies, numbers, np.zeros((len(kept), 0)))

    def __getitem__(self, rows: Ints) -> "History":
        """Return some of the candidates."""
        return History(
            self.kept[rows],
            self.peaks[rows],
            self.accuracies[rows],
            self.recipes[rows],
            self.shifts[rows],
        )

    def joined(self, other: "History") -> "History":
        """Return these candidates and others."""
        return History(
            np.concatenate([self.kept, other.kept]),
            np.concatenate([self.peaks, other.peaks]),
            np.concatenate([self.accuracies, other.accuracies]),
            np.concatenate([self.recipes, other.recipes]),
            np.concatenate([self.shifts, other.shifts]),
        )

    def __len__(self) -> int:
        return len(self.kept)

    def near(self, target_bytes: int | None) -> "History":
        """Return the candidates whose peaks are the nearest to a target, as a ratio.

        Args:
            target_bytes: the target; None for a choice spread over all peaks.
        """
        if len(self) <= MOST_LEARNED:
            return self
        if target_bytes is None:
            places = np.linspace(0, len(self) - 1, MOST_LEARNED).astype(np.int64)
            rows = np.sort(np.argsort(self.peaks, kind="stable")[places])
        else:
            away = np.abs(np.log(self.peaks) - np.log(target_bytes))
            rows = np.sort(np.argpartition(away, MOST_LEARNED)[:MOST_LEARNED])
        return self[rows]

    def has(self, proposal: Proposal) -> bool:
        """Whether a candidate is among them, up to rounding of its continuous values."""
        same = (self.recipes == proposal.recipe) & (self.kept == np.asarray(proposal.kept)).all(1)
        near = np.abs(self.shifts - np.array(proposal.shifts)).max(axis=1, initial=0.0) < _SAME
        return bool((same & near).any())

    def merit(self) -> Floats:
        """Return the weight of each as a parent, shape (n,).

        It decays with the gap to the most accurate candidate of equal or less memory.
        """
        order = np.argsort(self.peaks, kind="stable")
        best = np.empty(len(self))
        best[order] = np.maximum.accumulate(self.accuracies[order])
        behind = best - self.accuracies
        merit: Floats = np.exp(-behind / 0.02)
        return merit
