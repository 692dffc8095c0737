import importlib.util
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

import dse
from dse.data.decode import shaped
from dse.data.reading import Reading
from dse.deploy import bundle
from dse.deploy.formats import FORMATS, Exported
from dse.deploy.recipe import Recipe
from dse.deploy.recipe_parts import Expected, Preprocessing
from dse.finetune.loop import learning_rate_at
from dse.memory.measure import measure_peak
from dse.networks.logits import main_logits
from dse.step.canonical import classification_loss
from dse.step.settings import StepSettings
from support.recipes import make_recipe

FILES = Path(dse.__file__).parent / "deploy" / "bundle_files"
LABELS = ("cat", "dog")
ALONE = """
import runpy, sys
for name in ("dse", "timm", "transformers", "scipy", "optuna", "pydantic", "sklearn", "pandas"):
    sys.modules[name] = None  # importing it fails
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def training() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bundle_training", FILES / "training.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU6(inplace=True))
        self.body = nn.Sequential(nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class Tied(Tiny):
    """One parameter has two names, as tied embeddings have."""

    def __init__(self) -> None:
        super().__init__()
        self.body[1].bias = self.body[1].weight


def tiny_recipe(network: nn.Module, **changed: object) -> Recipe:
    fields = {
        "network": "nets:Tiny",
        "classes": 2,
        "labels": LABELS,
        "image_size": 12,
        "batch_size": 4,
        "optimizer": "sgd-momentum",
        "learning_rate": 0.05,
        "epochs": 15.0,
        "head": "head",
        "trained": tuple(name for name, _ in network.named_parameters()),
        "ram_bytes": 10**6,
        "preprocessing": Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
        "expected": Expected.of([0.9, 1.0]),
        **changed,
    }
    return make_recipe(**fields)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, and beside it a folder of dark and light images."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("bundled")
    network = Tied().eval()
    (place / "nets.py").write_text("", encoding="utf-8")
    kind = FORMATS["pytorch"]
    images = torch.randn(2, 3, 12, 12)
    folder = place / "bundle"
    folder.mkdir()
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    (folder / "weights.safetensors").write_bytes(safetensors.torch.save(tensors))
    recipe = tiny_recipe(network)
    source = kind.prepare(network, images, None)
    kind.write(Exported(network=network, recipe=recipe, images=images), source, folder)
    bundle._write_recipe(folder, recipe)
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4)):
        for label, level in (("dog", 40), ("cat", 200), ("eel", 120)):
            (place / "images" / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(level - 30, level + 30, (14, 18, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / "images" / part / label / f"{number}.png")
    return place


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            ALONE,
            *(str(place / "bundle" / "finetune.py"), *arguments),
        ],
        capture_output=True,
        text=True,
        cwd=place,
        check=False,
    )


def test_it_fine_tunes_without_dse_and_takes_other_labels(written: Path) -> None:
    done = run(written, "images")
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    assert "within 1,000,000" in done.stdout
    tensors = safetensors.torch.load_file(written / "finetuned.safetensors")
    assert tensors["head.weight"].shape == (3, 8)  # another label than the recipe's two
    share = float(done.stdout.partition(" % of 12 validation images")[0].rpartition("\n")[2])
    assert share > 60
    assert not (written / "bundle" / "__pycache__").exists()


def run_here(place: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> object:
    """Run finetune.py in this process and return its exit status."""
    script = str(place / "bundle" / "finetune.py")
    for name in ("network", "training"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(place / "bundle")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "argv", [script, str(place / "images"), *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    return ended.value.code


def test_a_seed_repeats_the_training(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "first", tmp_path / "second"]
    for path in paths:
        given = ("--epochs", "1", "--seed", "3", "--out", str(path))
        assert run_here(written, *given, monkeypatch=monkeypatch) == 0
    first, second = map(safetensors.torch.load_file, paths)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--epochs", "0"), "--epochs is 0.0: it must be above 0"),
        (("--out", "missing/weights"), "--out missing/weights: its folder doesn't exist"),
    ],
)
def test_wrong_options_are_refused_before_the_training(
    written: Path,
    given: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_here(written, *given, monkeypatch=monkeypatch) == 2
    assert message in capsys.readouterr().err


def test_labels_come_from_the_folders_below_each_part(training: ModuleType, tmp_path: Path) -> None:
    recipe = json.loads(tiny_recipe(Tiny(), batch_size=2, labels=("dog", "cat")).model_dump_json())
    image = Image.new("RGB", (12, 12))
    for name in ("train/cat/nested", "train/dog", "train/.cache", "val/cat"):
        (tmp_path / name).mkdir(parents=True)
        image.save(tmp_path / name / "1.png")
    labels, train, validation = training.image_folder(tmp_path, recipe, seed=0)
    assert labels == ["dog", "cat"]  # the recipe's order
    assert [label for _, label in train] == [1, 0]
    assert [label for _, label in validation] == [1]
    (tmp_path / "val" / "eel").mkdir()
    image.save(tmp_path / "val" / "eel" / "1.png")
    with pytest.raises(SystemExit, match=r"has the label 'eel', which .*train lacks"):
        training.image_folder(tmp_path, recipe, seed=0)
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(SystemExit, match="empty"):
        training.image_folder(tmp_path, recipe, seed=0)


def test_the_recipes_transforms_are_carried_out(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "varied"
    shutil.copytree(written, place)
    specs = ({"name": "RandomErasing", "p": 1.0}, {"name": "ColorJitter", "brightness": 0.2})
    network = Tied().eval()
    recipe = tiny_recipe(network, transforms=specs, epochs=2.0)
    kind, images = FORMATS["pytorch"], torch.randn(2, 3, 12, 12)
    exported = Exported(network=network, recipe=recipe, images=images)
    kind.write(exported, kind.prepare(network, images, None), place / "bundle")
    bundle._write_recipe(place / "bundle", recipe)
    assert (place / "bundle" / "transforms.py").is_file()
    done = run(place, "images")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    monkeypatch.syspath_prepend(place / "bundle")
    monkeypatch.delitem(sys.modules, "transforms", raising=False)
    training = importlib.import_module("training")
    read = recipe.model_dump(mode="json")
    data = [(torch.full((3, 12, 12), 200, dtype=torch.uint8), 0)] * 8
    first, again = (
        next(training.image_batches(data, read, seed=5, device="cpu"))[0] for _ in range(2)
    )
    assert torch.equal(first, again)
    assert first.flatten(1).std(dim=1).min() > 0  # erased, each in another place
    assert not torch.equal(first[0], first[1])
    with pytest.raises(SystemExit, match=r"recipe\.json: transforms: 'Cut' is no transform"):
        training.make_transforms({**read, "transforms": [{"name": "Cut"}]})


def test_finetune_is_short() -> None:
    assert len((FILES / "finetune.py").read_text("utf-8").splitlines()) < 80


def test_the_readme_has_the_three_commands(written: Path) -> None:
    text = (written / "bundle" / "README.md").read_text("utf-8")
    assert (
        "pip install torch torchvision safetensors\npython finetune.py IMAGES\ndse verify" in text
    )


def test_images_are_prepared_as_in_the_study(training: ModuleType) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (17, 23, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = 6
    plain = {"image_size": 9, "preprocessing": {}}
    assert np.array_equal(training.pixels(image, plain).numpy(), shaped(image, Reading.square(9)))
    how = {"crop": 0.8, "interpolation": "bicubic"}
    grey = {"image_size": 9, "input": {"shape": [1, 7, 9]}, "preprocessing": how}
    reading = Reading(channels=1, height=7, width=9, **how)  # type: ignore[arg-type]
    assert np.array_equal(training.pixels(image, grey).numpy(), shaped(image, reading))


def test_the_learning_rate_is_that_of_the_study(training: ModuleType) -> None:
    for steps in (1, 2, 7, 50):
        for step in range(steps):
            expected = learning_rate_at(step, steps=steps, peak=0.3)
            assert training.rate_at(step, steps=steps, peak=0.3) == expected


def test_logits_and_loss_are_those_of_the_study(training: ModuleType) -> None:
    torch.manual_seed(0)
    logits, auxiliary, embedding = torch.randn(4, 2), torch.randn(4, 2), torch.randn(4, 7)
    labels = torch.tensor([0, 1, 1, 0])
    for outputs in (
        logits,
        (logits, auxiliary, embedding),
        {"embedding": embedding, "logits": logits},
        {"aux": auxiliary, "out": logits},
        {"nothing": None, "first": logits},
    ):
        assert training.logits_of(outputs) is main_logits(outputs) is logits
        assert training.loss_of(outputs, labels) == classification_loss(outputs, labels)


@pytest.mark.parametrize(
    ("optimizer", "accumulate", "scheme"),
    [("sgd-momentum", 1, "full"), ("adamw", 2, "full"), ("sgd", 1, "last")],
)
def test_a_step_holds_what_dse_measures(
    training: ModuleType, optimizer: str, accumulate: int, scheme: str
) -> None:
    torch.manual_seed(0)
    trained = tuple(n for n, _ in Tiny().named_parameters() if scheme == "full" or "head" in n)
    frozen = () if scheme == "full" else ("stem", "stem.1", "body", "body.1")
    recipe = tiny_recipe(
        Tiny(), optimizer=optimizer, accumulate=accumulate, trained=trained, evaluating=frozen
    )
    batch = (torch.randn(4, 3, 12, 12), torch.tensor([0, 1, 1, 0]))
    settings = StepSettings(optimizer=optimizer, accumulate=accumulate, scheme=scheme)
    torch.set_num_threads(1)
    expected = measure_peak(Tiny(), *batch, settings=settings).peak_bytes
    step = training.Step(Tiny(), json.loads(recipe.model_dump_json()), device="cpu")

    def batches() -> object:
        while True:
            yield batch[0].clone(), batch[1].clone()

    step(batches(), 1e-6)
    held, _ = step.held_bytes(batches(), 1e-6)
    assert abs(held - expected) <= 0.03 * expected


def test_a_checkpointed_block_gives_the_same_gradients_and_statistics(training: ModuleType) -> None:
    torch.manual_seed(0)
    plain, checkpointed = Tiny(), Tiny()
    checkpointed.load_state_dict(plain.state_dict())
    training.checkpoint_block(checkpointed.body)
    for network in (plain, checkpointed):
        images = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
        network(images).sum().backward()
    for ours, theirs in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert torch.equal(plain.body[1].running_mean, checkpointed.body[1].running_mean)
    assert checkpointed.body[1].num_batches_tracked == 1


def test_every_format_names_plain_files() -> None:
    for word, kind in FORMATS.items():
        assert kind.files, word
        assert all(Path(name).name == name for name in kind.files)
        assert set(kind.files).isdisjoint({"recipe.json", "weights.safetensors"})
        assert bool(kind.modules) == (kind.extra is not None)
