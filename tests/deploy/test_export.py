import hashlib
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import dse
from dse.candidate import Candidate
from dse.data import load_data
from dse.deploy import bundle
from dse.deploy.recipe import Recipe
from dse.engines.engine import engine_plan
from dse.engines.plan_json import plan_to_json
from dse.errors import ExportError
from dse.footprint.rebuild import rebuild
from dse.inputs import InputSpec
from dse.metrics import Confusion
from dse.step.settings import StepSettings
from support.figures import figures_of
from support.recipes import make_recipe
from support.small_study import small_study

CHANNELS = {"stem.0": 5, "body.0": 8}
SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
SCHEMA = json.loads((SCHEMAS / "recipe-2.json").read_text("utf-8"))
FACTORY = """
from torch import nn


def tiny(num_classes, width=8):
    return Tiny(num_classes, width)


class Tiny(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(width, 12, 3), nn.BatchNorm2d(12), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(12, classes)

    def forward(self, images):
        return self.head(self.pool(self.body(self.stem(images))).flatten(1))
"""


@pytest.fixture(scope="module")
def factories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("factories")
    (folder / "tiny_for_export.py").write_text(FACTORY, encoding="utf-8")
    return folder


@pytest.fixture
def network(factories: Path) -> nn.Module:
    torch.manual_seed(3)
    network = rebuild(
        "tiny_for_export:tiny",
        classes=3,
        inputs=InputSpec.image(10),
        candidate=Candidate(channels=CHANNELS),
        search_path=factories,
    )
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    network.train()(torch.randn(16, 3, 10, 10))  # moves the running statistics
    return network.eval()


SCORED = figures_of(Confusion(np.array([[3, 0, 0], [0, 2, 0], [2, 0, 1]])))


def recipe_of(**changed: Any) -> Recipe:
    fixed = {"network": "tiny_for_export:tiny", "channels": CHANNELS, "trial": 4, "image_size": 10}
    return make_recipe(**{**fixed, "versions": {"dse": "0"}, **changed})


@pytest.fixture
def written(network: nn.Module, factories: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    bundle.write(
        folder,
        network=network,
        recipe=recipe_of(),
        score=lambda _: SCORED,
        search_path=factories,
    )
    return folder


def test_a_bundle_gives_the_same_network_back(
    network: nn.Module, written: Path, factories: Path
) -> None:
    loaded = dse.load(written, search_path=factories, trust=True)
    assert not loaded.training
    assert loaded.get_submodule("stem.0").weight.shape == (5, 3, 3, 3)
    images = torch.randn(7, 3, 10, 10)
    torch.testing.assert_close(loaded(images), network(images), rtol=0, atol=0)


def test_a_recipe_has_its_candidate_s_own_settings() -> None:
    study = small_study()
    data = load_data(study.data, seed=0)
    own = Candidate(length=1.5, learning_rate=0.03, batch_size=4, accumulate=4, engine="lean:least")
    lengths = {}
    for candidate in (Candidate(), own):
        recipe = Recipe.of(
            study,
            candidate,
            groups=(),
            data=data,
            seed=0,
            peak_bytes=1,
            convention="tensors",
            memory_model="",
        )
        lengths[candidate] = recipe.epochs
    assert lengths == {Candidate(): 2, own: 3}  # of proxy.full_epochs = 2
    assert (recipe.learning_rate, recipe.batch_size, recipe.accumulate) == (0.03, 4, 4)
    assert recipe.engine == "lean:least"


def test_the_recipe_tells_what_was_scored_and_fits_its_schema(written: Path) -> None:
    recipe = json.loads((written / "recipe.json").read_text("utf-8"))
    jsonschema.validate(recipe, SCHEMA)
    assert recipe.keys() == SCHEMA["properties"].keys()
    assert recipe["accuracy"] == recipe["scores"]["accuracy"] == 0.75
    assert recipe["scores"] == {
        metric: SCORED.values[metric] for metric in ("accuracy", "balanced-accuracy", "macro-f1")
    }
    assert recipe["recalls"] == [1.0, 1.0, 1 / 3]
    assert recipe["metric"] == "accuracy"
    weights = (written / "weights.safetensors").read_bytes()
    assert recipe["digests"]["weights.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert sorted(path.name for path in written.iterdir()) == ["recipe.json", "weights.safetensors"]
    low, high = recipe["accuracy_interval"]
    assert low < 0.75 < high


def test_loading_unpickles_nothing_and_leaves_the_random_state(
    written: Path, factories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for place, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(place, name, refuse)
    before = torch.get_rng_state()
    dse.load(written, search_path=factories, trust=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_code_of_a_bundles_own_runs_only_where_it_is_trusted(
    written: Path, factories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = written.parent / "trace"
    (written / "stranger.py").write_text(f"open({str(trace)!r}, 'w')\n", encoding="utf-8")
    monkeypatch.chdir(written)
    for name in ("stranger:make", "os:system", "tiny_for_export:tiny"):
        change(written, network=name)
        for search_path in (None, factories, written):
            with pytest.raises(ExportError, match=r"runs code of its own; load it with trust=True"):
                dse.load(written, search_path=search_path)
    assert not trace.exists()


def test_a_bundle_of_torchvision_needs_no_trust(tmp_path: Path) -> None:
    network = rebuild(
        "torchvision:squeezenet1_1", classes=3, inputs=InputSpec.image(32), candidate=Candidate()
    ).eval()
    recipe = recipe_of(network="torchvision:squeezenet1_1", channels={}, image_size=32)
    bundle.write(tmp_path, network=network, recipe=recipe, score=lambda _: SCORED)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(dse.load(tmp_path)(images), network(images))
    change(tmp_path, options={"pretrained": True})
    with pytest.raises(ExportError, match="takes no option 'pretrained' from an untrusted file"):
        dse.load(tmp_path)


def test_a_lean_bundle_is_loaded_lean_with_its_plan(tmp_path: Path) -> None:
    images = torch.randn(4, 3, 32, 32)
    stock = rebuild(
        "torchvision:resnet18", classes=3, inputs=InputSpec.image(32), candidate=Candidate()
    ).eval()
    plan = engine_plan(stock, images, settings=StepSettings(engine="lean"), batch_size=4)
    assert plan is not None
    recipe = recipe_of(
        network="torchvision:resnet18",
        channels={},
        image_size=32,
        scheme="full",
        engine="lean",
        plan=json.loads(plan_to_json(plan)),
    )
    bundle.write(tmp_path, network=stock, recipe=recipe, score=lambda _: SCORED)
    found = dse.load(tmp_path, lean=True)
    assert found.lean_plan == plan
    assert found.state_dict().keys() == stock.state_dict().keys()
    found(images).sum().backward()
    stock(images).sum().backward()
    for (name, own), other in zip(found.named_parameters(), stock.parameters(), strict=True):
        assert own.grad is not None, name
        assert torch.equal(own.grad, other.grad), name
    assert not isinstance(dse.load(tmp_path), type(found))
    change(tmp_path, plan={"programs": 3})
    with pytest.raises(ExportError, match="is damaged: plan"):
        dse.load(tmp_path, lean=True)
    change(tmp_path, plan=None)
    with pytest.raises(ExportError, match="has no lean plan"):
        dse.load(tmp_path, lean=True)


def test_a_bundle_of_version_1_is_read(network: nn.Module, written: Path, factories: Path) -> None:
    (written / "weights.safetensors").rename(written / "model.safetensors")
    recipe = json.loads((written / "recipe.json").read_text("utf-8"))
    older = json.loads((SCHEMAS / "recipe-1.json").read_text("utf-8"))
    kept = {key: value for key, value in recipe.items() if key in older["properties"]}
    kept["digests"] = {"model.safetensors": recipe["digests"]["weights.safetensors"]}
    (written / "recipe.json").write_text(json.dumps({**kept, "version": 1}), "utf-8")
    jsonschema.validate(json.loads((written / "recipe.json").read_text("utf-8")), older)
    loaded = dse.load(written, search_path=factories, trust=True)
    images = torch.randn(2, 3, 10, 10)
    assert torch.equal(loaded(images), network(images))


def test_files_are_added_replaced_and_taken_away(
    network: nn.Module, factories: Path, tmp_path: Path
) -> None:
    def written(*names: str) -> Recipe:
        def add(folder: Path, _: Recipe) -> None:
            for name in names:
                (folder / name).write_text("x", encoding="utf-8")

        return bundle.write(
            tmp_path,
            network=network,
            recipe=recipe_of(),
            score=lambda _: SCORED,
            search_path=factories,
            add=add,
        )

    found = written("network.py", "README.md").digests
    assert found["network.py"] == hashlib.sha256(b"x").hexdigest()
    assert (tmp_path / "README.md").exists()
    written("network.py")
    assert not (tmp_path / "README.md").exists()


def test_a_folder_with_a_readme_of_its_own_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine", encoding="utf-8")
    with pytest.raises(ExportError, match=r"holds 'README.md', which no bundle does"):
        bundle.check_target(tmp_path)


def test_a_later_field_in_a_recipe_is_passed_over(written: Path, factories: Path) -> None:
    change(written, later="yes")
    assert dse.load(written, search_path=factories, trust=True) is not None


def change(folder: Path, **changed: Any) -> None:
    path = folder / "recipe.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changed}), "utf-8")


def truncate(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def flip(folder: Path) -> None:
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def forge(folder: Path) -> None:
    """Weights that are no safetensors file, under their right digest."""
    path = folder / "weights.safetensors"
    path.write_bytes(b"not tensors")
    change(folder, digests={"weights.safetensors": hashlib.sha256(b"not tensors").hexdigest()})


def nest(folder: Path, depth: int) -> None:
    path = folder / "recipe.json"
    text = path.read_text("utf-8")
    nested = "[" * depth + "]" * depth
    path.write_text(text.replace('"options": {}', f'"options": {{"a": {nested}}}'), "utf-8")


def set_tensor(folder: Path, name: str, tensor: torch.Tensor) -> None:
    """Put a tensor into the weights, under their right digest."""
    path = folder / "weights.safetensors"
    content = safetensors.torch.save({**safetensors.torch.load_file(path), name: tensor})
    path.write_bytes(content)
    change(folder, digests={"weights.safetensors": hashlib.sha256(content).hexdigest()})


def enlarge(folder: Path, name: str) -> None:
    os.truncate(folder / name, 2**40)  # without using that much of the disk


def link(folder: Path, name: str) -> None:
    target = folder.parent / f"elsewhere-{name}"
    (folder / name).rename(target)
    (folder / name).symlink_to(target)


def pipe(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (truncate, "weights.safetensors is damaged or belongs to another recipe"),
        (flip, "weights.safetensors is damaged or belongs to another recipe"),
        (forge, "not a readable safetensors file"),
        (lambda f: (f / "weights.safetensors").unlink(), "weights.safetensors can't be read"),
        (lambda f: (f / "recipe.json").unlink(), "is not a bundle: it has no recipe.json"),
        (lambda f: (f / "recipe.json").write_text("{"), "recipe.json is damaged"),
        (lambda f: (f / "recipe.json").write_bytes(b"\xff\xfe"), "recipe.json is damaged"),
        (lambda f: (f / "recipe.json").write_text("[1]"), "recipe.json is damaged"),
        (lambda f: change(f, version=3), "has version 3, this release reads up to 2: update dse"),
        (lambda f: change(f, version=0), "recipe.json is damaged: version"),
        (lambda f: change(f, accuracy=7), "recipe.json is damaged: accuracy"),
        (lambda f: change(f, digests={}), "damaged or belongs to another recipe"),
        (lambda f: change(f, channels={"stem.0": 4}), "can't be rebuilt"),
        (lambda f: change(f, channels={"nowhere": 4}), "can't be rebuilt"),
        (lambda f: change(f, classes=4), "3 labels for 4 outputs"),
        (lambda f: change(f, classes=4, labels=list("abcd")), "can't be rebuilt"),
        (lambda f: change(f, classes="3"), "recipe.json is damaged: classes"),
        (lambda f: change(f, expected={"mean": 2}), "recipe.json is damaged: expected"),
        (lambda f: change(f, trained="weight"), "recipe.json is damaged: trained"),
        (lambda f: change(f, classes=10**300), "recipe.json is damaged: classes"),
        (lambda f: change(f, image_size=10**12), "recipe.json is damaged: image_size"),
        (lambda f: change(f, channels={"stem.0": True}), "recipe.json is damaged: channels"),
        (lambda f: change(f, channels={".".join(["a"] * 900): 4}), "can't be rebuilt"),
        (lambda f: change(f, scheme="from:"), "recipe.json is damaged: scheme"),
        (lambda f: change(f, scheme=7), "recipe.json is damaged: scheme"),
        (lambda f: change(f, options={"width": "wide"}), "can't be rebuilt"),
        (lambda f: change(f, preprocessing={"mean": [0, 0, 0], "std": [1, 0, 1]}), "std"),
        (lambda f: nest(f, 100_000), "recipe.json is damaged"),
        (lambda f: set_tensor(f, "head.bias", torch.full((3,), torch.nan)), "'head.bias' holds"),
        (lambda f: set_tensor(f, "stem.0.bias", torch.full((5,), torch.inf)), "'stem.0.bias' h"),
        (lambda f: set_tensor(f, "head.bias", torch.zeros(3, dtype=torch.int32)), "torch.int32"),
        (lambda f: set_tensor(f, "spare", torch.zeros(3)), "no tensor 'spare'"),
        (lambda f: enlarge(f, "weights.safetensors"), "more than the"),
        (lambda f: enlarge(f, "recipe.json"), "more than the"),
        (lambda f: link(f, "weights.safetensors"), "it is a link"),
        (lambda f: link(f, "recipe.json"), "it is a link"),
        (lambda f: pipe(f, "weights.safetensors"), "not a regular file"),
        (lambda f: pipe(f, "recipe.json"), "not a regular file"),
        (lambda f: change(f, network="torchvision:nothing"), "torchvision has no classifier"),
        (lambda f: change(f, network="no_such_module:f"), "importing 'no_such_module' failed"),
    ],
)
def test_a_damaged_bundle_is_refused_in_one_line(
    written: Path, factories: Path, damage: Callable[[Path], object], complaint: str
) -> None:
    damage(written)
    with pytest.raises(ExportError, match=complaint) as caught:
        dse.load(written, search_path=factories, trust=True)
    assert "\n" not in str(caught.value)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is not a bundle"):
        dse.load(tmp_path / "nowhere")
    with pytest.raises(ExportError, match=r"recipe\.json can't be read|is not a bundle"):
        dse.load(__file__)


def test_a_foreign_folder_is_left_alone(
    network: nn.Module, factories: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("mine", encoding="utf-8")
    with pytest.raises(ExportError, match=r"holds 'thesis.tex', which no bundle does"):
        bundle.write(
            tmp_path,
            network=network,
            recipe=recipe_of(),
            score=lambda _: SCORED,
            search_path=factories,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ExportError, match="can't hold a bundle"):
        bundle.check_target(tmp_path / "thesis.tex")


def test_an_older_bundle_stays_until_the_new_one_is_whole(
    network: nn.Module, written: Path, factories: Path
) -> None:
    before = {path.name: path.read_bytes() for path in written.iterdir()}

    def fail(_: nn.Module) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bundle.write(
            written, network=network, recipe=recipe_of(), score=fail, search_path=factories
        )
    assert {path.name: path.read_bytes() for path in written.iterdir()} == before


def test_what_a_killed_export_left_is_cleared_away(
    network: nn.Module, written: Path, factories: Path
) -> None:
    left = written / ".partial-dead"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(b"half")
    bundle.write(
        written,
        network=network,
        recipe=recipe_of(trial=5),
        score=lambda _: SCORED,
        search_path=factories,
    )
    assert not left.exists()
    assert Recipe.read(written / "recipe.json").trial == 5


def test_tied_parameters_survive(factories: Path, tmp_path: Path) -> None:
    (factories / "tied_for_export.py").write_text(
        "from torch import nn\n\n\nclass Tied(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.first = nn.Linear(3, 3)\n"
        "        self.second = nn.Linear(3, 3)\n"
        "        self.second.weight = self.first.weight\n"
        "        self.head = nn.Linear(3, num_classes)\n"
        "    def forward(self, images):\n"
        "        x = images.mean((2, 3))\n"
        "        return self.head(self.second(self.first(x)))\n",
        encoding="utf-8",
    )
    sys.modules.pop("tied_for_export", None)
    network = rebuild(
        "tied_for_export:Tied",
        classes=3,
        inputs=InputSpec.image(8),
        candidate=Candidate(),
        search_path=factories,
    ).eval()
    bundle.write(
        tmp_path / "tied",
        network=network,
        recipe=recipe_of(network="tied_for_export:Tied", channels={}, image_size=8),
        score=lambda _: SCORED,
        search_path=factories,
    )
    loaded = dse.load(tmp_path / "tied", search_path=factories, trust=True)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(loaded(images), network(images))
