"""Runs whose recipes vary beside the pruning ratios, with real memory models and training."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dse import names
from dse.candidate import Candidate, with_recipe
from dse.config import JointConfig, SpaceConfig, Study
from dse.deploy.export import export_candidate
from dse.errors import InfeasibleError, TrainingError
from dse.inputs import InputSpec
from dse.memory.cache import compiled_model
from dse.memory.model import MemoryModel
from dse.networks.examples import example_input
from dse.networks.study_network import network_without_weights
from dse.search.load import load_run
from dse.search.loop import DIVERGED_IN_A_ROW
from dse.search.plan import dry_run
from dse.search.run_models import run_models
from dse.search.study import run
from dse.step.settings import StepSettings
from support.searches import KIB, real_study

JOINT = JointConfig(scheme=("last",), batch_size=(4,), image_size=(8,), importance=("random",))


def joint_study(**search: object) -> Study:
    space = SpaceConfig(ratio=(0.0, 0.9), joint=JOINT)
    return real_study(**{"trials": 5, **search}).model_copy(update={"space": space})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint") / "run"
    run(joint_study(sampler="front"), out=folder)
    return folder


def test_recipes_vary_and_every_peak_is_of_the_candidates_own_step(done: Path) -> None:
    records = load_run(done)
    recipes = {trial.candidate.recipe for trial in records.trials}
    assert len(recipes) > 1
    network = network_without_weights(
        records.study, classes=3, inputs=InputSpec.image(records.study.data.image_size)
    )
    for trial in records.trials:
        own = with_recipe(records.study, trial.candidate)
        model = MemoryModel.compile(
            network,
            example_input(2, own.data.image_size),
            settings=StepSettings.of(own.training),
            groups=None,
        )
        kept = trial.candidate.kept(model.groups)
        assert trial.peak_bytes == model.peaks(kept, batch_size=own.training.batch_size)


def test_going_on_is_the_same_as_never_having_stopped(done: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(joint_study(sampler="front", trials=2), out=folder)
    again = run(joint_study(sampler="front"), out=folder)
    whole = [(one.number, one.candidate, one.accuracy) for one in load_run(done).trials]
    assert [(one.number, one.candidate, one.accuracy) for one in again.trials] == whole


def test_the_run_keeps_the_models_of_its_recipes(done: Path) -> None:
    check_models(done)


def check_models(folder: Path) -> None:
    models = run_models(folder)
    for trial in load_run(folder).complete:
        model = models(trial.candidate)
        batch_size = trial.candidate.batch_size or 8
        assert model.peaks(trial.candidate.kept(model.groups), batch_size=batch_size) == (
            trial.peak_bytes
        )


def test_an_exported_candidate_says_its_own_recipe(done: Path, tmp_path: Path) -> None:
    records = load_run(done)
    trial = next(one for one in records.complete if one.candidate.recipe != Candidate())
    recipe = export_candidate(records, trial.candidate, trial=trial.number, out=tmp_path / "bundle")
    own = with_recipe(records.study, trial.candidate)
    assert recipe.scheme == own.training.scheme
    assert (recipe.batch_size, recipe.accumulate) == (
        own.training.batch_size,
        own.training.accumulate,
    )
    assert recipe.image_size == own.data.image_size
    assert recipe.peak_bytes == trial.peak_bytes


def with_outdated_models(done: Path, folder: Path) -> Path:
    """Copy a run, and make its memory models those of another release."""
    shutil.copytree(done, folder)
    for path in (folder / "memory_models").iterdir():
        shutil.copy(folder / "memory_model.npz", path)  # of another recipe than it says
    content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    content["model_key"] = "another"
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_models_of_another_release_are_compiled_again(done: Path, tmp_path: Path) -> None:
    folder = with_outdated_models(done, tmp_path / "run")
    run(joint_study(sampler="front"), out=folder)
    check_models(folder)


def test_models_of_another_release_are_compiled_again_after_an_interruption(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_outdated_models(done, tmp_path / "run")
    stored = sorted((folder / "memory_models").iterdir())
    assert len(stored) > 1

    def interrupted(*args: Any, settings: StepSettings, **kwargs: Any) -> MemoryModel:
        if settings != own:
            raise KeyboardInterrupt
        return compiled_model(*args, settings=settings, **kwargs)

    own = StepSettings.of(joint_study().training)
    monkeypatch.setattr("dse.methods.workbench.compiled_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(joint_study(sampler="front"), out=folder)
    monkeypatch.undo()
    run(joint_study(sampler="front"), out=folder)
    assert sorted((folder / "memory_models").iterdir()) == stored
    check_models(folder)


def test_richer_recipes_than_the_studys_own_are_searched_up_to_the_budget(tmp_path: Path) -> None:
    study = real_study(sampler="front", trials=6, budgets=(10**9,))
    training = study.training.model_copy(update={"scheme": "last"})
    space = SpaceConfig(ratio=(0.0, 0.9), joint=JointConfig(scheme=("full",)))
    records = run(
        study.model_copy(update={"training": training, "space": space}), out=tmp_path / "run"
    )
    drawn = [one for one in records.trials if one.baseline is None]
    assert max(one.peak_bytes for one in drawn) > records.unpruned_peak_bytes


@pytest.mark.parametrize("sampler", names.SAMPLERS)
def test_every_sampler_draws_recipes(sampler: str, tmp_path: Path) -> None:
    records = run(joint_study(sampler=sampler, trials=3), out=tmp_path / "run")
    drawn = [one for one in records.trials if one.baseline is None]
    assert all(one.params.keys() >= {"scheme", "batch_size", "image_size"} for one in drawn)
    limit = max(records.study.search.budget_bytes)
    assert all(one.peak_bytes <= limit for one in records.complete)


def test_a_budget_that_only_another_recipe_meets_is_possible(tmp_path: Path) -> None:
    plan = dry_run(joint_study(sampler="random"))
    alone = dry_run(real_study(sampler="random"))
    lean, own = plan.smallest_peak_bytes, alone.smallest_peak_bytes
    assert lean is not None
    assert own is not None
    assert lean < own
    budget = (own + lean) // 2
    records = run(joint_study(sampler="front", trials=2, budgets=(budget,)), out=tmp_path / "run")
    assert all(one.peak_bytes <= budget for one in records.complete)
    with pytest.raises(InfeasibleError, match="below the smallest network"):
        dry_run(joint_study(sampler="random", budgets=(lean - 1,)))
    assert lean < 400 * KIB


@pytest.mark.parametrize("sampler", ["front", "tpe"])
def test_a_diverging_recipe_is_reported_and_the_search_goes_on(
    sampler: str, tmp_path: Path
) -> None:
    space = SpaceConfig(ratio=(0.0, 0.9), joint=JointConfig(learning_rate=(1e5, 1e6)))
    study = real_study(sampler=sampler, trials=12).model_copy(update={"space": space})
    records = run(study, out=tmp_path / "run")
    failed = [trial for trial in records.trials if trial.state == "failed"]
    assert len(failed) >= DIVERGED_IN_A_ROW  # in a row, they would have ended other runs
    assert all("lower the learning rate" in (trial.failure or "") for trial in failed)
    assert all(trial.candidate.learning_rate for trial in failed)
    assert len(records.complete) >= 3  # those that failed count as trials


def test_ten_diverging_candidates_in_a_row_end_a_run_and_name_the_last_recipe(
    tmp_path: Path,
) -> None:
    rates = tuple(1e5 * step for step in range(1, 11)) + tuple(1e4 * step for step in range(5, 10))
    space = SpaceConfig(ratio=(0.0, 0.9), joint=JointConfig(learning_rate=rates))
    study = real_study(sampler="random", trials=60).model_copy(update={"space": space})
    with pytest.raises(
        TrainingError, match=r"^10 candidates in a row .*; the last, rate \d.*: the loss is nan"
    ):
        run(study, out=tmp_path / "run")
