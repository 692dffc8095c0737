"""How much each dimension of the search matters for accuracy, estimated from the trials."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold

from dse.results.candidate_records import TrialRecord
from dse.results.records import RunRecords
from dse.results.varied import Value, ValueRange

FEWEST_TRIALS = 10
"""Fewest complete trials that an estimate is made of."""

MOST_TRIALS = 1500
"""Most trials that an estimate is made of, chosen at random: more of them take minutes."""

_FOLDS = 5
_REPEATS = 5
_TREES = 50


@dataclass(frozen=True, kw_only=True)
class DimensionImportance:
    """The importance of one dimension.

    Attributes:
        name: Name of a channel group, or of a setting of the recipe.
        mean: Mean increase of the error of predicted accuracies, from 0 to 1, when the dimension's
            values are shuffled among trials.
        spread: Standard deviation of that increase over folds and shuffles.
    """

    name: str
    mean: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class Importances:
    """The importance of every dimension that varies, largest first.

    Attributes:
        dimensions: The dimensions. Empty if there are too few trials, or nothing varies.
        trials: Number of complete trials.
        used: Number of these that the estimate is made of.
        explained: Coefficient of determination (R²) of predictions for trials that the forest has
            not seen. At 0 or below, the importances are noise.
    """

    dimensions: tuple[DimensionImportance, ...]
    trials: int
    used: int = 0
    explained: float = 0.0

    @property
    def predictive(self) -> bool:
        """Whether the forest predicts unseen trials better than their mean does."""
        return bool(self.dimensions) and self.explained > 0


def importances(records: RunRecords) -> Importances:
    """Estimate the importance of each pruning ratio and recipe setting for accuracy.

    A random forest predicts the accuracy at `short` from the candidates as they were trained (not
    from what the sampler drew). Importances are those of permutation, on trials that the forest
    wasn't fitted to (Breiman, "Random Forests", Machine Learning 45, 2001), so that dimensions
    which only fit noise get about 0. Dimensions that vary together share their importance.

    Args:
        records: the run. The same records give the same figures.
    """
    complete = records.complete
    trials = _some(complete)
    columns = {
        name: values for name, values in _columns(records, trials).items() if len({*values}) > 1
    }
    accuracies = np.array([trial.accuracy for trial in trials], dtype=np.float64)
    if len(trials) < FEWEST_TRIALS or not columns or np.ptp(accuracies) == 0:
        return Importances(dimensions=(), trials=len(complete))
    drops, explained = _permuted(np.column_stack(list(columns.values())), accuracies)
    found = [
        DimensionImportance(name=name, mean=float(row.mean()), spread=float(row.std(ddof=1)))
        for name, row in zip(columns, drops, strict=True)
    ]
    found.sort(key=lambda one: -one.mean)
    return Importances(
        dimensions=tuple(found), trials=len(complete), used=len(trials), explained=explained
    )


def _some(trials: Sequence[TrialRecord]) -> Sequence[TrialRecord]:
    """Return trials, or a random sample of them if there are many; the same for the same number."""
    if len(trials) <= MOST_TRIALS:
        return trials
    rows = np.random.default_rng(0).choice(len(trials), MOST_TRIALS, replace=False)
    return [trials[row] for row in sorted(rows)]


def _columns(records: RunRecords, trials: Sequence[TrialRecord]) -> dict[str, list[float]]:
    """Return the value of each dimension for each trial; choices count in the study's order."""
    kept = {
        name: [trial.candidate.channels.get(name, full) / full for trial in trials]
        for name, full in records.groups
    }
    own = {"learning_rate": records.study.training.learning_rate, "length": 1.0}
    recipes = {}
    for name, choices in records.joint.items():
        values = [getattr(trial.candidate, name) for trial in trials]
        # Rates and lengths count by their logarithm, also those beside the listed ones.
        recipes[name.replace("_", " ")] = (
            [math.log(own[name] if value is None else value) for value in values]
            if isinstance(choices, ValueRange) or name in own
            else _places(values, choices)
        )
    return recipes | kept


def _places(values: Sequence[Value | None], choices: Sequence[Value]) -> list[float]:
    """Return the place of each value among the choices, of which the first is the study's own."""
    places = {choice: place for place, choice in enumerate(choices)} | {None: 0}
    return [float(places.setdefault(value, len(places))) for value in values]


def _permuted(
    inputs: NDArray[np.float64], accuracies: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Fit a forest to each fold's complement.

    Args:
        inputs: (trials, dimensions).
        accuracies: (trials,).

    Returns:
        Increases of the mean absolute error, (dimensions, folds x shuffles), and R².
    """
    drops, predicted = [], np.zeros_like(accuracies)
    shuffler = np.random.default_rng(0)
    for fitted, unseen in KFold(_FOLDS, shuffle=True, random_state=0).split(inputs):
        forest = RandomForestRegressor(_TREES, max_features=1 / 3, random_state=0)
        forest.fit(inputs[fitted], accuracies[fitted])
        predicted[unseen] = forest.predict(inputs[unseen])
        shuffled = _shuffled(inputs[unseen], shuffler)
        found = forest.predict(shuffled.reshape(-1, inputs.shape[1])).reshape(shuffled.shape[:3])
        errors = np.abs(found - accuracies[unseen]).mean(axis=2)
        drops.append(errors - np.abs(predicted[unseen] - accuracies[unseen]).mean())
    return np.hstack(drops), float(r2_score(accuracies, predicted))


def _shuffled(inputs: NDArray[np.float64], shuffler: np.random.Generator) -> NDArray[np.float64]:
    """Return copies of the inputs, (dimensions, shuffles, trials, dimensions).

    In each copy, the values of one dimension are shuffled. All of them are predicted in one call,
    since scikit-learn's `permutation_importance` makes one call for each, which takes seconds.
    """
    count = inputs.shape[1]
    copies = np.tile(inputs, (count, _REPEATS, 1, 1))
    for dimension in range(count):
        column = copies[dimension, :, :, dimension]
        copies[dimension, :, :, dimension] = shuffler.permuted(column, axis=1)
    return copies
