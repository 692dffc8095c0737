"""The real parts together: data, network, groups, memory model and training."""

import shutil
from pathlib import Path

import pytest

from dse.config import DataConfig, JointConfig, NetworkConfig, Study
from dse.deploy.export import export_candidate
from dse.errors import DataError, DseError, InfeasibleError, NetworkError, RunError
from dse.memory.model import MemoryModel
from dse.search.load import load_run
from dse.search.plan import dry_run
from dse.search.run_folder import RunFolder
from dse.search.study import run
from dse.units import format_size
from support.images import write_folder
from support.searches import SIZE, Recorder, real_study, trained_images


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "run"
    observer = Recorder()
    run(real_study(), out=folder, observer=observer)
    assert max(observer.shares) == pytest.approx(1.0)
    return folder


def test_real_training_fills_the_records(done: Path) -> None:
    records = load_run(done)
    assert len(records.complete) == 2
    assert len(records.baselines) == 2
    unpruned = records.unpruned
    assert unpruned is not None
    final = records.final_of(unpruned.candidate)
    assert final is not None
    # Three digits after two epochs: chance is a third.
    assert final.validation_accuracy > 0.5
    assert final.step_seconds > 0
    model = MemoryModel.load(RunFolder(records.folder).memory_model)
    batch_size = records.study.training.batch_size
    for trial in records.trials:
        kept = trial.candidate.kept(model.groups)
        assert trial.peak_bytes == model.peaks(kept, batch_size=batch_size)


def test_going_on_reads_the_memory_model_and_trains_nothing(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(done, folder)
    monkeypatch.setattr("dse.methods.workbench.compiled_model", None)
    monkeypatch.setattr("dse.search.resolve.Proxy", None)
    assert run(real_study(), out=folder).trials == load_run(done).trials


def test_the_same_seed_finds_the_same(done: Path, tmp_path: Path) -> None:
    again = run(real_study(), out=tmp_path / "run")
    for one, other in zip(again.trials, load_run(done).trials, strict=True):
        assert one.params == other.params
        assert one.accuracy == other.accuracy
    assert [final.accuracies for final in again.finals] == [
        final.accuracies for final in load_run(done).finals
    ]


def test_a_damaged_memory_model_is_compiled_anew(done: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(done, folder)
    (folder / "memory_model.npz").write_bytes(b"damaged")
    assert run(real_study(), out=folder).trials == load_run(done).trials
    assert (folder / "memory_model.npz").stat().st_size > 1000


def test_a_network_that_changed_under_its_name_is_refused(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(done, folder)
    monkeypatch.setattr("support.searches.SMALL_WIDTH", 12)
    with pytest.raises(RunError, match=r"was run with network = .* another folder with --out"):
        run(real_study(), out=folder)
    model = (done / "memory_model.npz").read_bytes()
    assert (folder / "memory_model.npz").read_bytes() == model


def test_what_an_older_run_did_not_write_down_is_taken_as_it_is(done: Path) -> None:
    folder = RunFolder(done)
    file = folder.read()
    folder.confirm(file, {**(file.fingerprint or {}), "new key": "digest"})
    with pytest.raises(RunError, match=r"with network = \w+, now it is other"):
        folder.confirm(file, {"network": "other"})


def test_nothing_is_exported_from_data_that_changed_since_the_run(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", {"cat": 9, "dog": 9})
    changed = {"data": DataConfig(name="folder", root=tmp_path / "data", image_size=SIZE)}
    study = real_study(trials=1).model_copy(update=changed)
    training = study.training.model_copy(update={"batch_size": 4})
    study = study.model_copy(update={"training": training})
    folder, out = tmp_path / "run", tmp_path / "bundle"
    run(study, out=folder)
    records = load_run(folder)

    def export() -> None:
        export_candidate(records, records.trials[0].candidate, trial=0, out=out)

    image = next((tmp_path / "data" / "dog").iterdir())
    before = image.read_bytes()
    image.write_bytes(before + b"0")
    with pytest.raises(
        RunError, match=r"other data files \(by name and size\): .* has another size"
    ):
        export()
    image.write_bytes(before)
    (tmp_path / "data" / "dog").rename(tmp_path / "data" / "wolf")
    with pytest.raises(RunError, match=r"data\.labels = \['cat', 'dog'\], now it is .*'wolf'"):
        export()
    assert not out.exists()


def test_an_impossible_budget_is_refused_before_weights_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dse.search.resolve.Proxy", None)
    with pytest.raises(InfeasibleError, match=r"smallest network .* needs"):
        run(real_study(budgets=(2000,)), out=tmp_path / "run")


def test_inference_memory_has_a_model_of_its_own(tmp_path: Path) -> None:
    objectives = ("accuracy", "peak_bytes", "inference_peak_bytes")
    study = real_study(objectives=objectives, trials=1, finalists=1)
    records = run(study, out=tmp_path / "run")
    (trial,) = records.complete
    assert 0 < trial.values["inference_peak_bytes"] < trial.peak_bytes
    assert MemoryModel.load(tmp_path / "run" / "inference_memory_model.npz").settings.mode == (
        "inference"
    )


def with_network(study: Study, *, name: str | None = None, weights: str = "none") -> Study:
    network = NetworkConfig(name=name or study.network.name, weights=weights)
    return study.model_copy(update={"network": network})


def test_a_dry_run_says_what_a_run_would_do_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = dry_run(real_study())
    answer = plan.to_json()
    assert answer["classes"] == 3
    assert answer["groups"] == answer["free_groups"] == 2
    assert 0 < answer["smallest_peak_bytes"] < answer["unpruned_peak_bytes"]
    assert all(count > 0 for count in answer["images"].values())
    assert plan.notes == ()
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_agrees_with_the_run(done: Path) -> None:
    records, plan = load_run(done), dry_run(real_study())
    assert plan.unpruned_peak_bytes == records.unpruned_peak_bytes
    assert plan.smallest_peak_bytes == records.smallest_peak_bytes
    assert plan.data.train == trained_images(records)


def test_a_dry_run_finds_what_a_run_would_stumble_over(tmp_path: Path) -> None:
    study = real_study()
    with pytest.raises(InfeasibleError):
        dry_run(real_study(budgets=(2000,)))
    training = study.training.model_copy(update={"batch_size": 4096})
    with pytest.raises(DataError, match="too few for one batch of 4096"):
        dry_run(study.model_copy(update={"training": training}))
    for weights, message in (
        ("DEFAULT", "only networks of libraries have named weights"),
        (str(tmp_path / "missing.safetensors"), "no weights at"),
    ):
        with pytest.raises(NetworkError, match=message):
            dry_run(with_network(study, weights=weights))


def test_a_dry_run_names_what_of_a_joint_space_can_not_be() -> None:
    study = real_study().model_copy(
        update={"network": NetworkConfig(name="torchvision:mobilenet_v2", weights="none")}
    )
    study = study.model_copy(update={"data": study.data.model_copy(update={"image_size": 32})})
    for change, message in (
        ({"joint": JointConfig(batch_size=(1,))}, r"space\.joint\.batch_size holds 1, and under"),
        (
            {"joint": JointConfig(scheme=("from:no",))},
            r"space\.joint, from:no: scheme 'from:no' na",
        ),
    ):
        space = study.space.model_copy(update=change)
        with pytest.raises(DseError, match=message):
            dry_run(study.model_copy(update={"space": space}))
    training = study.training.model_copy(update={"batch_size": 1})
    with pytest.raises(
        DseError, match=r"training\.batch_size holds 1, and under scheme full on 32"
    ):
        dry_run(study.model_copy(update={"training": training}))


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("seven", r"gives \(1, 7\) for one sample, not \(1, 3\)"),
        ("broken", r"can't run on an image of shape \(1, 3, 12, 12\): ValueError: no; change"),
        ("leaving", "can't be built with num_classes=3: it ends the process"),
        ("number", "the factory returned 'int', not a torch"),
        ("lazy", r"lazy: a lazy layer has no channels yet"),
    ],
)
def test_a_network_of_ones_own_is_tried_first(factory: str, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        dry_run(with_network(real_study(), name=f"support.wrong_networks:{factory}"))


def test_a_budget_that_nothing_can_meet_is_named(tmp_path: Path) -> None:
    plan = dry_run(real_study(budgets=(2000, 400 * 1024)))
    (note,) = plan.notes
    assert note.startswith(
        "search.budgets: no network of the search space meets 2.0 KiB: the smallest"
    )
    assert note.endswith(f"needs {format_size(plan.smallest_peak_bytes or 0)}")
    observer = Recorder()
    study = real_study(budgets=(2000, 400 * 1024), trials=1, finalists=1)
    run(study, out=tmp_path / "run", observer=observer)
    assert note in observer.messages


def test_a_memory_model_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run" / "memory_model.npz").mkdir(parents=True)
    with pytest.raises(RunError, match=r"memory_model\.npz can't be written: Is a directory"):
        run(real_study(), out=tmp_path / "run")


def test_a_dry_run_checks_named_weights_without_fetching_them() -> None:
    study = real_study(budgets=(2**31,))
    squeeze = with_network(study, name="torchvision:squeezenet1_1")
    data = study.data.model_copy(update={"image_size": 64})
    squeeze = squeeze.model_copy(update={"data": data})
    plan = dry_run(with_network(squeeze, weights="IMAGENET1K_V1"))
    assert any("will be downloaded" in note for note in plan.notes)
    with pytest.raises(
        NetworkError, match=r"'IMAGENET9', did you mean .* use 'none', a file of weights or"
    ):
        dry_run(with_network(squeeze, weights="IMAGENET9"))
