"""Searches by another metric than accuracy."""

import optuna
import pytest

from dse.deploy.limits import Limit
from dse.deploy.pick import pick_for
from dse.results.records import RunRecords
from dse.search.study import run
from support.searches import KIB, real_study


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunRecords]:
    """The same search, by accuracy and by macro F1."""
    folder = tmp_path_factory.mktemp("metric")
    return {
        metric: run(real_study(sampler="random", metric=metric), out=folder / metric)
        for metric in ("accuracy", "macro-f1")
    }


def test_the_trainings_are_the_same_and_their_scores_are_others(
    found: dict[str, RunRecords],
) -> None:
    plain, other = found["accuracy"], found["macro-f1"]
    images = plain.class_images
    assert images is not None
    assert len(plain.complete) == len(other.complete) > 0
    for one, two in zip(plain.complete, other.complete, strict=True):
        assert (one.candidate, one.correct) == (two.candidate, two.correct)
        assert one.accuracy == sum(one.correct or ()) / sum(images.selection)
        assert two.accuracy == two.values["accuracy"] != one.accuracy
    assert plain.finals[0].validation_correct == other.finals[0].validation_correct
    assert plain.finals[0].validation_accuracies != other.finals[0].validation_accuracies


def test_the_metric_is_named_in_the_storage_and_in_the_pick(found: dict[str, RunRecords]) -> None:
    records = found["macro-f1"]
    archive = optuna.load_study(study_name=None, storage=f"sqlite:///{records.folder / 'study.db'}")
    assert archive.metric_names == ["macro F1", "peak (bytes)"]
    picked = pick_for(records, Limit(ram=400 * KIB), max_drop=100)
    assert picked.chosen is not None
    assert picked.to_json()["metric"] == records.metric == "macro-f1"
