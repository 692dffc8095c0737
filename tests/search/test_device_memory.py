"""Studies that count what their device holds beyond tensors."""

import dataclasses
from pathlib import Path

import pytest

from dse.candidate import Candidate
from dse.config import Study
from dse.deploy.limits import Limit
from dse.deploy.pick import pick_for
from dse.footprint.measure import built_candidate
from dse.inputs import InputSpec
from dse.memory.measure import measure_peak
from dse.networks.devices import threads_set
from dse.report.page import convention_text
from dse.search.costs import Costs
from dse.search.device_memory import BeyondTensors, convention_of
from dse.search.plan import dry_run
from dse.search.study import run
from dse.step.settings import StepSettings
from support.searches import BATCH, KIB, Recorder, memory_model, real_study, tiny_study


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSE_CACHE", str(tmp_path / "cache"))


def on(device: str, **search: object) -> Study:
    study = tiny_study(**search)
    training = study.training.model_copy(update={"device": device})
    return study.model_copy(update={"training": training})


def test_cuda_counts_what_its_allocator_holds_unless_the_study_says_otherwise() -> None:
    assert convention_of(on("cpu")) == convention_of(on("mps")) == "tensors"
    assert convention_of(on("cuda")) == convention_of(on("cuda:1")) == "allocator"
    assert convention_of(on("cuda", convention="tensors")) == "tensors"
    assert convention_of(on("cpu", convention="allocator")) == "allocator"


def test_only_a_convention_that_is_named_changes_what_a_study_means() -> None:
    plain = tiny_study()
    assert plain.meaning_digest == tiny_study(convention=None).meaning_digest
    assert plain.meaning_digest != tiny_study(convention="allocator").meaning_digest


def test_the_most_of_what_was_found_is_added_to_every_peak() -> None:
    beyond = BeyondTensors("cuda", (70 * 2**20, 66 * 2**20, 65 * 2**20))
    assert beyond.added_bytes == 70 * 2**20
    assert beyond.text is not None
    assert "70.0 MiB, 66.0 MiB, 65.0 MiB beyond" in beyond.text
    assert BeyondTensors("cpu", ()).added_bytes == 0
    assert BeyondTensors("cpu", ()).text is None
    model = memory_model()
    plain, raised = (
        Costs(
            training=model,
            inference=None,
            batch_size=BATCH,
            objectives=("peak_bytes",),
            beyond_tensors_bytes=added,
        )
        for added in (0, 1000)
    )
    candidate = Candidate(channels={"first": 8})
    assert raised.peak_bytes(candidate) == plain.peak_bytes(candidate) + 1000
    exact = dataclasses.replace(raised, on_device=lambda one: one.channels["first"])
    assert exact.peak_bytes(candidate) == 8
    rows = [candidate.kept(model.groups)] * 2
    assert (raised.peaks(rows) == plain.peaks(rows) + 1000).all()


def test_a_plan_counts_it_and_says_so() -> None:
    tensors = dry_run(real_study())
    allocator = dry_run(real_study(convention="allocator"))
    assert tensors.unpruned_peak_bytes is not None
    assert allocator.unpruned_peak_bytes is not None
    assert tensors.smallest_peak_bytes is not None
    assert allocator.smallest_peak_bytes is not None
    assert allocator.unpruned_peak_bytes > tensors.unpruned_peak_bytes
    assert allocator.smallest_peak_bytes > tensors.smallest_peak_bytes
    assert any("on cpu a step holds" in note for note in allocator.notes)
    study = real_study(convention="allocator")
    settings = StepSettings.of(study.training)
    with threads_set(study.training.threads):
        built = built_candidate(
            study.network.name,
            Candidate(channels={}),
            classes=3,
            inputs=InputSpec.image(study.data.image_size),
            batch_size=study.training.batch_size,
            settings=settings,
        )
        measured = measure_peak(*built, settings=settings)
    assert measured.peak_bytes == allocator.unpruned_peak_bytes


def test_a_plan_for_a_device_of_another_machine_says_what_is_missing() -> None:
    study = real_study()
    training = study.training.model_copy(update={"device": "cuda:99"})
    plan = dry_run(study.model_copy(update={"training": training}))
    assert any("'cuda:99'" in note and "isn't counted" in note for note in plan.notes)


def test_a_run_budgets_picks_and_reports_by_it(tmp_path: Path) -> None:
    recorder = Recorder()
    study = real_study(sampler="random", convention="allocator")
    records = run(study, out=tmp_path / "run", observer=recorder)
    assert any("convention allocator: on cpu" in line for line in recorder.messages)
    assert records.convention == "allocator"
    assert convention_text(records).startswith("allocator: bytes that the device's allocator")
    assert {trial.state for trial in records.trials} <= {"complete", "infeasible"}
    found = pick_for(records, Limit(ram=400 * KIB), max_drop=100)
    assert found.chosen is not None
    assert found.measured_peak_bytes is not None
    assert found.measured_peak_bytes == found.chosen.peak_bytes <= 400 * KIB
    assert not any("held" in note for note in found.notes)
