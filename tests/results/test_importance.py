"""Importance of dimensions: what accuracy depends on comes first, and noise stays at about 0."""

from dataclasses import replace

import numpy as np
import pytest

from dse.candidate import Candidate
from dse.report.search_tables import importance_note
from dse.results.importance import FEWEST_TRIALS, importances
from dse.results.records import RunRecords
from dse.results.varied import ValueRange
from support.runs import GROUPS, make_records


def run_of(trials: int, *, by: str = "ratio", joint: bool = False) -> RunRecords:
    """A run whose accuracy depends on one group's channels, or on the scheme, and on nothing else.

    Args:
        by: `ratio`, `scheme` or `noise`.
    """
    rng = np.random.default_rng(1)
    records = make_records(trials=0, baselines=False, finals=0)
    name, full = GROUPS[3]
    found = []
    for number in range(trials):
        channels = {group: int(rng.integers(1, own)) for group, own in GROUPS}
        scheme = rng.choice(["full", "last"]) if joint else None
        value = {
            "ratio": channels[name] / full,
            "scheme": 0.9 if scheme == "last" else 0.2,
            "noise": rng.random(),
        }[by]
        candidate = Candidate(channels=channels, scheme=None if scheme == "full" else scheme)
        accuracy = 0.4 + 0.5 * float(value)
        found.append(
            replace(
                make_records(trials=1, finals=0).trials[0],
                number=number,
                candidate=candidate,
                accuracy=accuracy,
                values={"accuracy": accuracy, "peak_bytes": 1e6},
            )
        )
    choices = {"scheme": ("full", "last")} if joint else {}
    return replace(records, trials=tuple(found), joint=choices)


def test_the_group_that_decides_comes_first_and_the_others_are_noise() -> None:
    found = importances(run_of(60))
    first, *others = found.dimensions
    assert first.name == GROUPS[3][0]
    assert found.explained > 0.5
    assert first.mean > 0.02
    assert all(one.mean < first.mean / 5 for one in others)
    assert len(others) == len(GROUPS) - 1


def test_a_setting_of_the_recipe_is_a_dimension() -> None:
    found = importances(run_of(40, by="scheme", joint=True))
    assert found.dimensions[0].name == "scheme"
    assert found.dimensions[0].mean == pytest.approx(0.175, abs=0.08)  # half of all differ


def test_a_range_is_a_dimension_beside_the_study_s_own_value() -> None:
    run = run_of(40)
    rates = [None if n % 7 == 0 else 10.0 ** (n % 5 - 4) for n in range(40)]
    trials = tuple(
        replace(
            one,
            candidate=Candidate(channels=one.candidate.channels, learning_rate=rate),
            accuracy=0.3 if rate is None or rate < 0.01 else 0.8,
        )
        for one, rate in zip(run.trials, rates, strict=True)
    )
    found = importances(
        replace(run, trials=trials, joint={"learning_rate": ValueRange(low=0.0001, high=1)})
    )
    assert found.dimensions[0].name == "learning rate"
    assert found.predictive


def test_noise_is_not_predictive() -> None:
    found = importances(run_of(30, by="noise"))
    assert found.dimensions
    assert not found.predictive


def test_few_trials_and_equal_ones_give_none() -> None:
    assert not importances(run_of(FEWEST_TRIALS - 1)).dimensions
    run = run_of(FEWEST_TRIALS)
    same = tuple(replace(one, candidate=run.trials[0].candidate) for one in run.trials)
    assert not importances(replace(run, trials=same)).dimensions
    flat = tuple(replace(one, accuracy=0.5) for one in run.trials)
    assert not importances(replace(run, trials=flat)).dimensions


def test_the_same_records_give_the_same_figures() -> None:
    run = run_of(20)
    assert importances(run) == importances(run)


def test_of_many_trials_a_sample_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dse.results.importance.MOST_TRIALS", 60)
    found = importances(run_of(90))
    assert (found.trials, found.used) == (90, 60)
    assert found.dimensions[0].name == GROUPS[3][0]
    assert found == importances(run_of(90))
    assert "over 60 of 90 trials" in importance_note(found, metric="accuracy")
