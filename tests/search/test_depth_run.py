"""A run that leaves residual blocks out: memory, training, bundle and report of such candidates."""

import importlib.util
import json
from pathlib import Path

import jsonschema
import pytest
import torch
from safetensors.torch import load_file

import dse
from dse.candidate import Candidate
from dse.config import JointConfig, NetworkConfig, SpaceConfig, Study
from dse.deploy.export import export_candidate
from dse.footprint.rebuild import rebuild
from dse.inputs import InputSpec
from dse.methods.baseline import compare
from dse.report.html.entries import recipe_settings
from dse.search.load import load_run
from dse.search.plan import dry_run
from dse.search.study import run
from dse.step.settings import StepSettings
from support.searches import real_study
from support.traces import fresh_peak

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
BOTH = "features.3,features.5"  # the blocks with a residual sum


def depth_study(**joint: object) -> Study:
    study = real_study(sampler="front", trials=5, budgets=(10**9,))
    space = SpaceConfig(ratio=(0.0, 0.9), joint=JointConfig(**{"auto": False, **joint}))
    network = NetworkConfig(name="support.networks:short_mobilenet")
    return study.model_copy(update={"space": space, "network": network})


def built(study: Study, candidate: Candidate) -> torch.nn.Module:
    return rebuild(
        study.network.name,
        classes=3,
        inputs=InputSpec.image(study.data.image_size),
        candidate=candidate,
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("depth") / "run"
    run(depth_study(drop=(BOTH,)), out=folder)
    return folder


def test_peaks_are_those_of_fresh_traces_and_no_candidate_prunes_what_it_lacks(done: Path) -> None:
    records = load_run(done)
    assert {trial.candidate.drop for trial in records.trials} == {None, BOTH}
    study = records.study
    for trial in records.trials:
        if trial.candidate.drop is not None:
            own = [name for name in trial.candidate.channels if name.startswith(("features.3.",))]
            assert not own
        shape = (study.training.batch_size, 3, study.data.image_size, study.data.image_size)
        step = StepSettings.of(study.training)
        assert trial.peak_bytes == fresh_peak(built(study, trial.candidate), shape, step=step)


def test_a_bundle_is_the_network_without_its_blocks(done: Path, tmp_path: Path) -> None:
    records = load_run(done)
    trial = next(one for one in records.complete if one.candidate.drop)
    bundle = tmp_path / "bundle"
    recipe = export_candidate(records, trial.candidate, trial=trial.number, out=bundle)
    assert (recipe.drop, recipe.peak_bytes) == (BOTH, trial.peak_bytes)
    content = json.loads((bundle / "recipe.json").read_text("utf-8"))
    jsonschema.validate(content, json.loads((SCHEMAS / "recipe-2.json").read_text("utf-8")))
    loaded = dse.load(bundle, trust=True)
    spec = importlib.util.spec_from_file_location("shorter_network", bundle / "network.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    alone = module.build()
    weights = load_file(bundle / "weights.safetensors")
    alone.load_state_dict(weights)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(alone.eval()(images), loaded(images))
    assert not [name for name in weights if name.startswith(("features.3.", "features.5."))]


def test_reports_name_the_blocks(done: Path) -> None:
    records = load_run(done)
    settings = recipe_settings(records, Candidate(drop=BOTH))
    assert settings["blocks left out"] == "features.3, features.5"
    assert Candidate(drop=BOTH).recipe_text == "without features.3 and features.5"


def test_depth_takes_sets_of_a_quarter_and_half_of_the_blocks(tmp_path: Path) -> None:
    plan = dry_run(depth_study(depth=True))
    assert plan.joint == {"drop": ("none", "features.5")}
    (lighter,) = (one for one in compare("depth", depth_study()).outcomes)
    assert lighter.alternative.candidate == Candidate(drop="features.5")
    study = depth_study(drop=("features.4",))
    with pytest.raises(dse.DseError, match=r"'features\.4' can't be left out: it turns"):
        run(study, out=tmp_path / "run")
