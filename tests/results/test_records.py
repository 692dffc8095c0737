"""Records: JSON there and back, and what they refuse."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dse.candidate import Candidate
from dse.errors import RunError
from dse.results.candidate_records import BaselineRecord, FinalRecord, TrialRecord
from dse.results.records import RunRecords, is_rival
from dse.search.run_folder import RunFolder
from support.runs import MIB, make_records, make_study


@pytest.fixture(scope="module")
def records() -> RunRecords:
    return make_records()


def final(**changes: Any) -> FinalRecord:
    fields: dict[str, Any] = {
        "label": "trial 3",
        "trial": 3,
        "candidate": Candidate(channels={"stem": 4}),
        "peak_bytes": 10,
        "accuracies": (0.9, 0.8, 1.0),
        "validation_accuracies": (0.7, 0.7, 0.7),
        "step_seconds": 0.1,
    }
    return FinalRecord(**(fields | changes))


def test_every_record_survives_json(records: RunRecords) -> None:
    assert records.trials
    assert records.baselines
    assert records.finals
    for trial in records.trials:
        assert TrialRecord.from_json(trial.to_json()) == trial
    for baseline in records.baselines:
        assert BaselineRecord.from_json(baseline.to_json()) == baseline
    for one in records.finals:
        assert FinalRecord.from_json(one.to_json()) == one


def test_json_holds_the_canonical_candidate() -> None:
    assert final().to_json()["candidate"] == {"channels": {"stem": 4}, "version": 1}


def test_whole_numbers_stay_whole() -> None:
    trial = TrialRecord(
        number=0,
        state="running",
        params={"channels": 8, "ratio": 0.5, "scheme": "full"},
        candidate=Candidate(),
        peak_bytes=10,
        values={},
    )
    params = TrialRecord.from_json(trial.to_json()).params
    assert [type(value) for value in params.values()] == [int, float, str]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peak_bytes": "much"}, "final 3: peak_bytes: "),
        ({"surprise": 1}, "final 3: surprise: "),
        ({"candidate": {"version": 7}}, "final 3: candidate.version: "),
        ({"accuracies": []}, "one of each per seed"),
    ],
)
def test_wrong_json_is_named_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError) as caught:
        FinalRecord.from_json(final().to_json() | change, source="final 3")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named() -> None:
    data = final().to_json()
    del data["step_seconds"]
    with pytest.raises(RunError, match="step_seconds"):
        FinalRecord.from_json(data)


@pytest.mark.parametrize("accuracy", [float("nan"), float("inf"), -float("inf"), 1.1, 93.0])
def test_accuracies_are_scores(accuracy: float, records: RunRecords) -> None:
    with pytest.raises(RunError, match="a number up to 1"):
        replace(records.complete[0], accuracy=accuracy)
    with pytest.raises(RunError, match="a number up to 1"):
        replace(records.baselines[0], accuracy=accuracy)
    with pytest.raises(RunError, match="a number up to 1"):
        final(validation_accuracies=(0.5, 0.5, accuracy))


def test_a_complete_trial_has_an_accuracy(records: RunRecords) -> None:
    with pytest.raises(RunError, match=r"trial \d+ is complete but has no accuracy"):
        replace(records.complete[0], accuracy=None)


def test_every_objective_must_be_there() -> None:
    study = make_study(objectives=("accuracy", "peak_bytes", "parameters"))
    records = make_records(study=study)
    trial = records.complete[0]
    poor = replace(trial, values=dict.fromkeys(("accuracy", "peak_bytes"), 1.0))
    with pytest.raises(RunError, match=f"trial {trial.number} has no finite value for objective"):
        replace(records, trials=(poor,))
    with pytest.raises(RunError, match="the reference has no finite value"):
        replace(records, reference={})
    with pytest.raises(RunError, match="baseline unpruned has no finite value"):
        replace(records, baselines=(replace(records.baselines[0], values={}),))


def test_means_and_spreads() -> None:
    one = final()
    assert one.accuracy == pytest.approx(0.9)
    assert one.spread == pytest.approx(0.1)
    assert one.validation_accuracy == pytest.approx(0.7)
    assert one.validation_spread == pytest.approx(0.0)
    assert final(accuracies=(0.9,), validation_accuracies=(0.8,)).spread is None


def test_what_a_run_says_of_itself(records: RunRecords) -> None:
    counts = records.trials_by_state
    assert sum(counts.values()) == len(records.trials)
    assert counts["running"] == 0
    assert counts["complete"] == len(records.complete) > 0
    assert RunFolder(records.folder).memory_model == Path("runs/digits/memory_model.npz")
    assert records.unpruned is not None
    assert records.unpruned.peak_bytes == records.unpruned_peak_bytes == 64 * MIB
    whole = records.final_of(records.unpruned.candidate)
    assert whole is not None
    assert whole.label == "unpruned"
    assert records.final_of(Candidate(channels={"stem": 1})) is None


def test_a_run_without_anything_yet() -> None:
    records = make_records(trials=0, baselines=False, finals=0)
    assert records.complete == ()
    assert records.unpruned is None
    assert set(records.trials_by_state.values()) == {0}


def test_baselines_compete_where_their_recipe_may_be_drawn() -> None:
    joint = {"scheme": ("full", "last"), "batch_size": (32, 16)}
    assert is_rival({}, Candidate(channels={"first": 4}))
    assert is_rival(joint, Candidate(scheme="last", batch_size=16, accumulate=2))
    assert not is_rival(joint, Candidate(scheme="norm"))
    assert not is_rival(joint, Candidate(image_size=16))
    assert not is_rival({}, Candidate(scheme="last"))
