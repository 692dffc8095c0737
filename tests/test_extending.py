"""One of each kind, added from outside the package as docs/extending.md says."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dse import MemoryModel, load, names
from dse.candidate import Candidate
from dse.cli import main
from dse.config import BaselinesConfig, ProxyConfig, TrainingConfig
from dse.deploy.formats import FORMATS, Exported, check_format
from dse.errors import ConfigError
from dse.footprint.footprint import footprint
from dse.footprint.request import FootprintRequest, StepOverrides
from dse.memory.conventions import CONVENTIONS
from dse.memory.measure import measure_peak
from dse.methods.alternatives import METHODS, Subject
from dse.pruning.groups import find_groups
from dse.pruning.importance import CRITERIA, group_importance
from dse.registry import Registry
from dse.report.content import report_content
from dse.report.write import write_report
from dse.sampling.samplers import SAMPLERS
from dse.sampling.search_space import SearchSpace
from dse.search.baselines import baselines
from dse.search.objectives import OBJECTIVES
from dse.search.study import run
from dse.step.optimizers import OPTIMIZERS
from dse.step.schemes import SCHEMES, apply_scheme
from dse.step.settings import StepSettings
from support.networks import Residual
from support.recipes import make_recipe
from support.searches import memory_model, real_study, search, tiny_study

TEXT = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = dict(
    re.findall(r"^## An? ([^\n]*)\n\n```python\n(.*?)```", TEXT, re.MULTILINE | re.DOTALL)
)
IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Take out again what an example registers."""
    registries: list[Registry[Any]] = [
        SCHEMES, OPTIMIZERS, CRITERIA, CONVENTIONS, OBJECTIVES, SAMPLERS, METHODS, FORMATS,
    ]  # fmt: skip
    before = [set(registry) for registry in registries]
    yield
    for registry, words in zip(registries, before, strict=True):
        for word in set(registry) - words:
            registry.unregister(word)


def run_example(kind: str) -> None:
    exec(compile(EXAMPLES[kind], "docs/extending.md", "exec"), {})  # noqa: S102  # our own docs


def test_an_optimizer_is_configured_trained_and_modelled_to_the_byte() -> None:
    run_example("optimizer")
    assert TrainingConfig(optimizer="rmsprop").optimizer == "rmsprop"
    assert Candidate(optimizer="rmsprop").optimizer == "rmsprop"
    labels = torch.tensor([0, 1, 2, 0])
    peaks = {}
    for optimizer in ("sgd", "rmsprop"):
        model = MemoryModel.compile(Residual(), IMAGES, optimizer=optimizer, groups=())
        peaks[optimizer] = int(model.peaks([], batch_size=4))
    weights = sum(4 * parameter.numel() for parameter in Residual().parameters())
    assert peaks["rmsprop"] >= peaks["sgd"] + weights  # one buffer for each parameter
    settings = StepSettings(optimizer="rmsprop")
    assert measure_peak(Residual(), IMAGES, labels, settings=settings).peak_bytes > weights


def test_the_commands_take_what_is_registered_before_they_start(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ("--optimizer", "rmsprop", "--image-size", "16", "--batch", "4", "--classes", "3")
    assert main(["memory", "support.networks:Blocks", *flags]) == 2
    assert "rmsprop" in capsys.readouterr().err
    run_example("optimizer")
    assert main(["memory", "support.networks:Blocks", *flags]) == 0
    assert ", rmsprop" in capsys.readouterr().out


def test_a_scheme_is_configured_applied_and_modelled() -> None:
    run_example("scheme")
    assert TrainingConfig(scheme="vectors").scheme == "vectors"
    assert Candidate(scheme="vectors").scheme == "vectors"
    network = Residual()
    apply_scheme(network, IMAGES, "vectors")
    assert {name for name, tensor in network.named_parameters() if tensor.requires_grad} == {
        "head.weight",
        *(name for name, tensor in network.named_parameters() if tensor.ndim == 1),
    }
    peaks = [
        int(
            MemoryModel.compile(Residual(), IMAGES, scheme=scheme, groups=()).peaks(
                [], batch_size=4
            )
        )
        for scheme in ("last", "vectors", "full")
    ]
    assert peaks == sorted(peaks)
    assert len(set(peaks)) == len(peaks)


def test_a_criterion_ranks_channels() -> None:
    run_example("importance criterion")
    assert ProxyConfig(importance="position").importance == "position"
    network = Residual()
    groups = find_groups(network, IMAGES)
    scores = group_importance(network, groups, criterion="position")
    for group in groups:
        assert np.array_equal(scores[group.name], np.arange(group.channels))


def test_a_convention_counts() -> None:
    run_example("convention")
    request = FootprintRequest(
        target="support.networks:Blocks", classes=3, overrides=StepOverrides(image_size=14)
    )
    tensors = footprint(request)
    streamed = footprint(replace(request, convention="streamed"))
    assert streamed.breakdown.categories["input"] == 0
    assert streamed.breakdown.peak_bytes < tensors.breakdown.peak_bytes
    assert streamed.timeline_convention == "streamed"
    with pytest.raises(ConfigError, match="--probe runs operators again"):
        footprint(replace(request, convention="streamed", probe=True))


def test_an_objective_is_searched_and_reported(tmp_path: Path) -> None:
    run_example("objective")
    objectives = ("accuracy", "peak_bytes", "weights_bytes")
    records = search(tmp_path / "run", tiny_study(objectives=objectives))
    for trial in records.complete:
        kept = trial.candidate.kept(memory_model().groups)
        assert trial.values["weights_bytes"] == memory_model().parameter_bytes(kept)
    content = report_content(records, models=lambda _: memory_model())
    files = write_report(content, out=tmp_path / "report", formats=("svg",))
    assert "weights\\_bytes" in files.index.read_text(encoding="utf-8")


def test_a_sampler_draws_by_its_seed(tmp_path: Path) -> None:
    run_example("sampler")
    drawn = []
    for seed, folder in ((1, "first"), (1, "again"), (2, "other")):
        study = tiny_study(sampler="tpe-univariate", trials=2)
        records = search(tmp_path / folder, study.model_copy(update={"seed": seed}))
        drawn.append([trial.candidate for trial in records.trials])
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_baseline_method_is_scored_in_a_search() -> None:
    run_example("baseline method")
    assert names.BASELINE_METHODS["half-batch"] == "cut the batch in two"
    methods = BaselinesConfig(methods=("half-batch", "uniform"))
    study = tiny_study().model_copy(
        update={"baselines": methods, "training": TrainingConfig(batch_size=8)}
    )
    model = memory_model()
    subject = Subject(
        study=study,
        network=Residual(width=16, classes=3),
        space=SearchSpace.resolve(study.space, model.groups),
        model=model,
    )
    unpruned, half, uniform = baselines(subject)
    assert (half.label, half.kind, half.ratio) == ("half the batch", "half-batch", 0.0)
    assert half.candidate == Candidate(batch_size=4, accumulate=2)
    assert unpruned.candidate == Candidate()
    assert uniform.ratio == 0.5


def test_an_export_format_writes_its_files(tmp_path: Path) -> None:
    run_example("export format")
    check_format("numpy")
    network = Residual()
    recipe = make_recipe(network="nets:Residual")
    exported = Exported(network=network, recipe=recipe, images=IMAGES[:2])
    kind = FORMATS["numpy"]
    assert kind.write(exported, kind.prepare(network, IMAGES[:2]), tmp_path) == ()
    assert tuple(path.name for path in tmp_path.iterdir()) == kind.files
    with np.load(tmp_path / "weights.npz") as written:
        assert set(written) == set(network.state_dict())
        for name, tensor in network.state_dict().items():
            np.testing.assert_array_equal(written[name], tensor.numpy())


def test_the_command_writes_an_export_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = real_study(trials=1)
    brief = ProxyConfig(calibrate_batches=1, short_epochs=0.1, full_epochs=0.1, full_seeds=1)
    without = BaselinesConfig(methods=())
    run(study.model_copy(update={"proxy": brief, "baselines": without}), out=tmp_path / "run")
    bundle = tmp_path / "bundle"
    flags = ["export", str(tmp_path / "run"), "--trial", "0", "--untrained", "--out", str(bundle)]
    assert main([*flags, "--format", "numpy"]) == 2
    refused = capsys.readouterr().err
    assert "unknown export format 'numpy': use pytorch, onnx or executorch" in refused
    assert not bundle.exists()
    run_example("export format")
    assert main([*flags, "--format", "numpy", "--format", "numpy", "--format", "pytorch"]) == 0
    network = load(bundle, trust=True)
    with np.load(bundle / "weights.npz") as written:
        for name, tensor in network.state_dict().items():
            np.testing.assert_array_equal(written[name], tensor.numpy())
    assert (bundle / "finetune.py").is_file()
