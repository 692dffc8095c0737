"""Whom a report speaks of."""

import numpy as np
import pytest

from dse.candidate import Candidate
from dse.errors import RunError
from dse.report.selection import (
    attained,
    baseline_hypervolume,
    front_trials,
    hypervolume_shares,
    knee_trial,
    shown_candidate,
)
from support.runs import MIB, make_records, make_study


def test_the_front_is_what_no_trial_beats() -> None:
    records = make_records()
    front = front_trials(records)
    assert front
    for trial in records.complete:
        beaten = any(
            other.peak_bytes <= trial.peak_bytes
            and (other.accuracy or 0) >= (trial.accuracy or 0)
            and (other.peak_bytes, other.accuracy) != (trial.peak_bytes, trial.accuracy)
            for other in records.complete
        )
        assert beaten == (trial not in front)


def test_more_objectives_keep_the_front_with_the_same_line() -> None:
    two = make_records()
    three = make_records(study=make_study(objectives=("accuracy", "peak_bytes", "parameters")))
    numbers = {trial.number for trial in front_trials(two)}
    assert numbers <= {trial.number for trial in front_trials(three)}
    assert {trial.number for trial in attained(front_trials(three))} == numbers


def test_the_picked_one_is_found_wherever_it_was_trained() -> None:
    records = make_records()
    final = records.finals[0]
    shown = shown_candidate(records, picked=final.candidate)
    assert shown is not None
    assert shown.label == f"picked ({final.label})"
    assert shown.accuracy == final.validation_accuracy
    bare = make_records(finals=0)
    trial = bare.complete[0]
    shown = shown_candidate(bare, picked=trial.candidate)
    assert shown is not None
    assert (shown.label, shown.accuracy) == (f"picked (trial {trial.number})", trial.accuracy)
    shown = shown_candidate(bare, picked=bare.baselines[2].candidate)
    assert shown is not None
    assert shown.label == "picked (uniform 0.50)"


def test_a_stranger_can_not_be_picked() -> None:
    stranger = Candidate(channels={"stem": 31})
    with pytest.raises(RunError, match=f"candidate {stranger.digest} was never trained"):
        shown_candidate(make_records(), picked=stranger)


def test_without_a_pick_the_knee_is_shown_or_the_smallest() -> None:
    records = make_records()
    bend = knee_trial(records)
    assert bend is not None
    shown = shown_candidate(records, picked=None)
    assert shown is not None
    assert shown.candidate == bend.candidate
    one = make_records(trials=1, finals=0)
    shown = shown_candidate(one, picked=None)
    assert shown is not None
    assert shown.label == "smallest of the front (trial 0)"
    assert shown_candidate(make_records(trials=0, finals=0), picked=None) is None


def test_hypervolume_counts_trials_of_any_state_and_never_falls() -> None:
    records = make_records()
    shares = hypervolume_shares(records)
    assert len(shares) == len(records.trials)
    assert np.all(np.diff(shares) >= 0)
    for row, trial in enumerate(records.trials[1:], start=1):
        if trial.state != "complete":
            assert shares[row] == shares[row - 1]
    assert 0 < shares[-1] < 1
    baseline = baseline_hypervolume(records)
    assert baseline is not None
    assert 0 < baseline < 1


def test_hypervolume_of_one_trial_by_hand() -> None:
    records = make_records(trials=1, finals=0)
    trial = records.trials[0]
    width = 1 - trial.peak_bytes / records.unpruned_peak_bytes
    height = ((trial.accuracy or 0) - 0.2) / 0.8
    assert hypervolume_shares(records).tolist() == pytest.approx([width * height])


def test_hypervolume_without_anything() -> None:
    empty = make_records(trials=0, baselines=False, finals=0)
    assert hypervolume_shares(empty).tolist() == []
    assert baseline_hypervolume(empty) is None
    hopeless = make_records(baselines=False, finals=0, study=make_study(budgets=(MIB,)))
    assert set(hypervolume_shares(hopeless).tolist()) == {0.0}
