"""Accuracy between recorded candidates: an honest stand-in for training.

The mean of two regressors of other kinds than the search's own surrogate (which is a Gaussian
process: a world made of one would flatter it), plus noise that is fixed for each candidate, of the
size that another seed makes. What was recorded scores what was recorded.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from recorded import Row, key_of
from scipy.stats import kendalltau
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from world import Kept, World

from dse.candidate import Candidate
from dse.config import Study
from dse.finetune.evaluation import Evaluation
from dse.finetune.rung import Rung
from dse.names import Fidelity

Floats = NDArray[np.float64]
HALVINGS = 10


@dataclass(frozen=True)
class Errors:
    """How far the interpolation is off, fitted on one half and judged on the other.

    Attributes:
        rmse: root of the mean squared error, the noise of a single training included.
        kendall: rank correlation of predicted with recorded accuracies.
        bias: mean of predicted minus recorded.
        front_bias: the same over the tenth that is most accurate for its memory.
    """

    rmse: float
    kendall: float
    bias: float
    front_bias: float


@dataclass(frozen=True, eq=False)
class Interpolation:
    """Accuracies of the whole space from a table.

    Attributes:
        noise: standard deviation that another seed makes.
    """

    world: World
    rows: Sequence[Row]
    noise: float

    def accuracy(self, kept: Kept) -> float:
        """Score a candidate."""
        row = self._recorded.get(key_of(kept))
        if row is not None:
            return row.accuracy
        mean = self.mean(kept)
        digest = hashlib.sha256(key_of(kept).encode()).digest()
        chance = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        return float(np.clip(mean + self.noise * chance.normal(), 0.0, 1.0))

    def mean(self, kept: Kept) -> float:
        """What a candidate would score on average: no noise, and no luck of its recording."""
        if kept not in self._means:
            (mean,) = self._predict(self._features([kept]))
            self._means[kept] = float(mean)
        return self._means[kept]

    @cached_property
    def errors(self) -> Errors:
        """Fit on one half, judge on the other, several times over."""
        kept = [row.kept for row in self.rows]
        features = self._features(kept)
        truth = np.array([row.accuracy for row in self.rows])
        peaks = np.array([row.peak_bytes for row in self.rows])
        ahead = truth - _typical(peaks, truth)
        found = []
        for seed in range(HALVINGS):
            order = np.random.default_rng(seed).permutation(len(truth))
            half, rest = np.array_split(order, 2)
            predict = _fitted(features[half], truth[half])
            off = predict(features[rest]) - truth[rest]
            best = ahead[rest] >= np.quantile(ahead[rest], 0.9)
            tau = kendalltau(predict(features[rest]), truth[rest]).statistic
            found.append((np.mean(off**2), tau, np.mean(off), np.mean(off[best])))
        squared, tau, bias, front = np.mean(found, axis=0)
        return Errors(float(np.sqrt(squared)), float(tau), float(bias), float(front))

    @cached_property
    def _means(self) -> dict[Kept, float]:
        return {}  # each is needed twice or more

    @cached_property
    def _recorded(self) -> dict[str, Row]:
        return {key_of(row.kept): row for row in self.rows}

    @cached_property
    def _predict(self) -> Callable[[Floats], Floats]:
        truth = np.array([row.accuracy for row in self.rows])
        return _fitted(self._features([row.kept for row in self.rows]), truth)

    def _features(self, kept: Sequence[Kept]) -> Floats:
        """Log kept shares, and what sums them up: memory, mean, least, thirds of the depth."""
        counts = np.array(kept)
        logs = np.log(counts / np.array(self.world.full))
        peaks = np.log(self.world.peaks(counts) / self.world.unpruned_peak_bytes)
        thirds = [third.mean(axis=1) for third in np.array_split(logs, 3, axis=1)]
        sums = np.stack([peaks, logs.mean(axis=1), logs.min(axis=1), *thirds], axis=1)
        return np.concatenate([logs, sums], axis=1)


@dataclass(frozen=True, eq=False)
class InterpolatedEvaluator:
    """Stands in a search where the proxy would train."""

    interpolation: Interpolation
    images_trained: int
    images_forward: int

    def accuracy(self, kept: Kept) -> float:
        """Score channel counts."""
        return self.interpolation.accuracy(kept)

    def mean(self, kept: Kept) -> float:
        """Score without noise."""
        return self.interpolation.mean(kept)

    def under(self, _study: Study) -> "InterpolatedEvaluator":
        """Recipes are what they were when the table was recorded."""
        return self

    def evaluate(
        self,
        candidate: Candidate,
        *,
        fidelity: Fidelity,
        seed_index: int = 0,
        read_validation: bool = False,
        rung: Rung | None = None,  # noqa: ARG002  # nothing is given up half-way
        on_progress: Callable[[float], None] | None = None,  # noqa: ARG002  # done at once
    ) -> Evaluation:
        """Look a candidate up; every fidelity scores what `short` would."""
        choices = self.interpolation.world.space.choices
        accuracy = self.interpolation.accuracy(candidate.kept(choices))
        return Evaluation(
            candidate_digest=candidate.digest,
            fidelity=fidelity,
            seed=seed_index,
            accuracy=accuracy,
            validation_accuracy=accuracy if read_validation else None,
            loss=1 - accuracy,
            wall_seconds=0.0,
            step_seconds=0.0,
            images_trained=self.images_trained,
            images_forward=self.images_forward,
        )


def _fitted(features: Floats, truth: Floats) -> Callable[[Floats], Floats]:
    kernel: Pipeline = make_pipeline(StandardScaler(), SVR(C=1.0, epsilon=0.01, gamma=0.01))
    trees = ExtraTreesRegressor(100, min_samples_leaf=2, max_features=0.5, random_state=0)
    kernel.fit(features, truth)
    trees.fit(features, truth)

    def predict(rows: Floats) -> Floats:
        mean: Floats = (kernel.predict(rows) + trees.predict(rows)) / 2
        return mean

    return predict


def _typical(peaks: NDArray[np.int64], truth: Floats) -> Floats:
    """What candidates of about that memory score, by a running mean over a tenth of the rows."""
    order = np.argsort(peaks)
    width = max(1, len(order) // 10)
    typical = np.empty(len(order))
    for place, index in enumerate(order):
        near = order[max(0, place - width // 2) : place + width // 2 + 1]
        typical[index] = truth[near].mean()
    return typical
