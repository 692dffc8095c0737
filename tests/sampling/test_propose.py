from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from dse.config import SpaceConfig
from dse.results.front import hypervolume
from dse.sampling.gain import expected_gain
from dse.sampling.history import History
from dse.sampling.propose import FIRST, Proposer
from dse.sampling.search_space import SearchSpace
from dse.sampling.surrogate import Surrogate
from dse.search.aiming import Aiming
from dse.search.costs import Costs
from support.searches import BATCH, CLASSES, formula, memory_model, tiny_study

MODEL = memory_model()
SPACE = SearchSpace.resolve(SpaceConfig(ratio=(0.0, 0.9)), MODEL.groups)
FULL = [group.channels for group in MODEL.groups]
UNPRUNED = int(MODEL.peaks(FULL, batch_size=BATCH))


def proposer() -> Proposer:
    study = tiny_study(budgets=(UNPRUNED,))
    costs = Costs(
        training=MODEL, inference=None, batch_size=BATCH, objectives=study.search.objectives
    )
    return Aiming(SPACE, costs, study.search, seed=0).proposer(1 / CLASSES)


def peaks(kept: NDArray[np.int64]) -> NDArray[np.int64]:
    return MODEL.peaks(kept, batch_size=BATCH)


def history(count: int, seed: int = 0) -> History:
    rng = np.random.default_rng(seed)
    kept = np.array([[rng.choice(ladder) for ladder in SPACE.ladders] for _ in range(count)])
    scores = [formula(SPACE.candidate(SPACE.parameters(row))) for row in kept.tolist()]
    return History.of(kept.reshape(count, -1), peaks(kept), np.array(scores))


@pytest.mark.parametrize("count", [1, FIRST - 1, FIRST, 40])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_proposals_hit_their_target_and_are_new(count: int, share: float) -> None:
    target = int(share * UNPRUNED)
    known = history(count)
    rng = np.random.default_rng(1)
    kept, recipe, _ = proposer().propose(known, target_bytes=target, rng=rng)
    assert recipe == 0
    assert all(count in ladder for count, ladder in zip(kept, SPACE.ladders, strict=True))
    assert 0.8 * target < int(peaks(np.array([kept]))[0]) <= target
    assert list(kept) not in known.kept.tolist()
    again, *_ = proposer().propose(known, target_bytes=target, rng=np.random.default_rng(1))
    assert again == kept


def test_what_it_proposes_gets_better() -> None:
    """Over random directions: with what was learnt, the same number of trials reach farther."""

    def reached(*, asks: bool) -> float:
        known = history(4, seed=7)
        rng = np.random.default_rng(3)
        for _ in range(20):
            seen = known if asks else known[np.array([0])]
            target = int(rng.uniform(0.15, 0.9) * UNPRUNED)
            kept, *_ = proposer().propose(seen, target_bytes=target, rng=rng)
            score = formula(SPACE.candidate(SPACE.parameters(kept)))
            found = np.array([kept])
            known = known.joined(History.of(found, peaks(found), np.array([score])))
        values = np.stack([known.accuracies, known.peaks], axis=1)
        return hypervolume(values, reference=[1 / CLASSES, UNPRUNED], maximise=[True, False])

    assert reached(asks=True) > reached(asks=False)


def test_without_a_target_it_chooses_one_within_the_limit() -> None:
    kept, *_ = proposer().propose(history(30), target_bytes=None, rng=np.random.default_rng(0))
    assert int(peaks(np.array([kept]))[0]) <= UNPRUNED


points = arrays(np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.floats(0, 1))


@given(points=points, peak=st.floats(0, 1), accuracy=st.floats(0, 1))
def test_the_gain_of_a_certain_candidate_is_what_it_adds(
    points: NDArray[np.float64], peak: float, accuracy: float
) -> None:
    """With hardly any doubt, the expected gain is the difference of two hypervolumes."""
    (gain,) = expected_gain(
        np.array([accuracy]),
        np.array([1e-9]),
        np.array([peak]),
        accuracies=points[:, 0],
        known_peaks=points[:, 1],
        chance=0.1,
        largest=0.9,
    )
    settings = {"reference": [0.1, 0.9], "maximise": [True, False]}
    more = np.concatenate([points, [[accuracy, peak]]])
    added = hypervolume(more, **settings) - hypervolume(points, **settings)
    assert gain == pytest.approx(added, abs=1e-6)


def test_doubt_and_a_smaller_peak_promise_more() -> None:
    def gain(deviation: float, peak: float) -> float:
        (value,) = expected_gain(
            np.array([0.7]),
            np.array([deviation]),
            np.array([peak]),
            accuracies=np.array([0.6, 0.9]),
            known_peaks=np.array([0.3, 0.6]),
            chance=0.1,
            largest=1.0,
        )
        return float(value)

    assert gain(0.01, 0.4) < gain(0.1, 0.4) < gain(0.3, 0.4)
    values = [gain(0.05, peak) for peak in (0.9, 0.6, 0.5, 0.3, 0.2)]
    assert all(a < b for a, b in pairwise(values))
    assert gain(0.05, 1.2) == 0


def test_a_surrogate_learns_a_smooth_function_and_knows_its_doubt() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(80, 6))
    values = np.tanh(inputs[:, 0] + 0.5 * inputs[:, 1]) + 0.01 * rng.normal(size=80)
    surrogate = Surrogate.fit(inputs[:60], values[:60])
    means, deviations = surrogate.predict(inputs[60:])
    assert np.sqrt(np.mean((means - values[60:]) ** 2)) < 0.35 * np.std(values)
    _, near = surrogate.predict(inputs[:60])
    _, far = surrogate.predict(10 * inputs[60:])
    assert near.mean() < deviations.mean() < far.mean()


@pytest.mark.parametrize("count", [2, 3, 300])
def test_a_surrogate_takes_few_rows_equal_ones_and_many(count: int) -> None:
    inputs = np.repeat([[0.0, 1.0]], count, axis=0)
    means, deviations = Surrogate.fit(inputs, np.full(count, 0.5)).predict(inputs)
    assert means == pytest.approx(0.5)
    assert np.all(np.isfinite(deviations))
    assert np.all(deviations > 0)
