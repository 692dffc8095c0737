"""Which baselines a run scores."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dse.candidate import Candidate
from dse.config import BaselinesConfig, Study
from dse.methods.alternatives import RANDOM_DRAWS_IN_RUN, Subject
from dse.sampling.search_space import SearchSpace
from dse.search.baselines import baselines
from support.networks import Residual
from support.searches import BATCH, CLASSES, KIB, memory_model, search, tiny_study


def study_with(*methods: str, **others: object) -> Study:
    study = tiny_study(**others)
    training = study.training.model_copy(update={"batch_size": BATCH})
    return study.model_copy(
        update={"baselines": BaselinesConfig(methods=methods), "training": training}
    )


def subject_of(study: Study) -> Subject:
    return Subject(
        study=study,
        network=Residual(width=16, classes=CLASSES),
        space=SearchSpace.resolve(study.space, memory_model().groups),
        model=memory_model(),
    )


def test_the_rule_gives_its_first_network_within_each_budget() -> None:
    study = study_with("peak-greedy", budgets=(1, 200 * KIB, 320 * KIB, 10**9))
    model = memory_model()
    first, large, small = baselines(subject_of(study))
    assert first.candidate == Candidate()
    assert [large.label, small.label] == ["peak-greedy 320.0 KiB", "peak-greedy 200.0 KiB"]
    for one, budget in ((large, 320 * KIB), (small, 200 * KIB)):
        peak = int(model.peaks(one.candidate.kept(model.groups), batch_size=BATCH))
        assert 0.9 * budget < peak <= budget
    assert 0 < large.ratio < small.ratio < 1


def test_the_rule_leaves_room_for_what_the_device_holds_beyond_tensors() -> None:
    beyond = 50 * KIB
    study = study_with("peak-greedy", budgets=(320 * KIB,))
    _, one = baselines(replace(subject_of(study), beyond_tensors_bytes=beyond))
    model = memory_model()
    peak = int(model.peaks(one.candidate.kept(model.groups), batch_size=BATCH))
    assert one.label == "peak-greedy 320.0 KiB"
    assert 0.9 * 320 * KIB < peak + beyond <= 320 * KIB


def test_budgets_that_print_alike_are_distinguished_by_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dse.methods.alternatives.format_size", lambda _size: "0.3 MiB")
    records = search(tmp_path / "run", study_with("peak-greedy"))
    _, large, small = records.baselines
    assert large.label == f"peak-greedy 0.3 MiB, {large.peak_bytes} bytes"
    assert small.label == f"peak-greedy 0.3 MiB, {small.peak_bytes} bytes"
    assert large.label != small.label


def test_methods_come_in_the_order_that_the_study_gives() -> None:
    study = study_with("random", "uniform", "peak-greedy")
    kinds = [one.kind for one in baselines(subject_of(study))]
    expected = ["unpruned", *["random"] * RANDOM_DRAWS_IN_RUN, "uniform", *["peak-greedy"] * 2]
    assert kinds == expected
    again = [one.candidate for one in baselines(subject_of(study))]
    assert again == [one.candidate for one in baselines(subject_of(study))]


def test_a_run_scores_them_and_keeps_them(tmp_path: Path) -> None:
    records = search(tmp_path / "run", study_with("uniform", "peak-greedy"))
    assert [one.kind for one in records.baselines] == [
        "unpruned",
        "uniform",
        "peak-greedy",
        "peak-greedy",
    ]
    assert json.dumps(records.baselines[2].to_json())
    assert all(0 < one.accuracy <= 1 for one in records.baselines)


@pytest.mark.parametrize("methods", [(), ("uniform", "peak-greedy", "random")])
def test_which_are_scored_changes_no_result(methods: tuple[str, ...]) -> None:
    assert study_with(*methods).meaning_digest == study_with("uniform").meaning_digest
