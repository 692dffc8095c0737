import ast
import copy
import hashlib
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import models

from dse.candidate import Candidate
from dse.deploy import bundle
from dse.deploy.formats import FORMATS, Exported
from dse.deploy.lean_files import LeanFiles, lean_files, run_as_in_bundle
from dse.deploy.recipe import Recipe
from dse.deploy.recipe_parts import Preprocessing
from dse.deploy.step_process import StepRequest, perform
from dse.deploy.verify import verify
from dse.engines.lean import lean
from dse.engines.network import LeanNetwork
from dse.engines.op import Op
from dse.engines.plan import Level
from dse.engines.plan_json import plan_to_json
from dse.errors import NetworkError
from dse.footprint.rebuild import rebuild
from dse.inputs import InputSpec
from dse.memory.measure import measure_peak
from dse.metrics import Confusion
from dse.pruning.groups import find_groups
from dse.step.lite_residual import attach
from dse.step.schemes import apply_scheme
from dse.step.settings import StepSettings
from support import networks
from support.figures import figures_of
from support.lean import assert_same, at_level, lean_copy
from support.recipes import make_recipe

SCORED = figures_of(Confusion(np.eye(3, dtype=np.int64)))
ALONE = """
import json, sys
for name in ("dse", "timm", "optuna", "pydantic", "sklearn", "scipy", "pandas"):
    sys.modules[name] = None  # importing it fails
sys.path.insert(0, sys.argv[1])
import torch
from lean import lean
from network import build
from safetensors.torch import load_file
torch.manual_seed(0)
images = torch.randn(4, 3, 16, 16)
found = []
for makes_lean in (False, True):
    network = build()
    network.load_state_dict(load_file(sys.argv[1] + "/weights.safetensors"))
    network.train()
    if makes_lean:
        lean(network, json.load(open(sys.argv[1] + "/lean.json")))
    network(images).square().sum().backward()
    found.append([*(p.grad for p in network.parameters()), *network.buffers()])
print(all(torch.equal(a, b) for a, b in zip(*found, strict=True)), len(found[0]))
"""


class Inverted(nn.Module):
    """An inverted residual whose norm and activation are functions, beside a classifier."""

    def __init__(self, act: Callable[[Tensor], Tensor] = nn.functional.relu6) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6())
        self.expand = nn.Conv2d(8, 48, 1, bias=False)
        self.norm = nn.BatchNorm2d(48)
        self.depthwise = nn.Conv2d(48, 48, 3, 1, 1, groups=48, bias=False)
        self.project = nn.Conv2d(48, 8, 1, bias=False)
        self.head = nn.Linear(8, 3)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        norm = self.norm
        y = nn.functional.batch_norm(
            self.expand(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, True
        )
        x = x + self.project(self.act(self.depthwise(self.act(y))))
        return self.head(nn.functional.dropout(x, 0.1, self.training).mean((2, 3)))


class Norms(nn.Module):
    """Batch normalisations of other settings than usual."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8, momentum=0.7),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, groups=8),
            nn.BatchNorm2d(8, track_running_stats=False),
            nn.ReLU(),
            nn.Conv2d(8, 8, 1),
            nn.BatchNorm2d(8, affine=False),
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))


class Branches(nn.Module):
    """Branches with batch normalisation and dropout, which run as a whole or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.left = nn.Sequential(nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.3))
        self.right = nn.Sequential(nn.Conv2d(8, 4, 3, 1, 1), nn.BatchNorm2d(4, momentum=0.7))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head(torch.cat([self.left(x), self.right(x)], 1).mean((2, 3)))


def _convnext() -> nn.Module:
    setting = models.convnext.CNBlockConfig
    blocks = [setting(8, 16, 2), setting(16, None, 1)]
    return models.ConvNeXt(blocks, stochastic_depth_prob=0.5, layer_scale=0.5, num_classes=3)


def _side_branches() -> nn.Module:
    network = networks.Blocks()
    attach(network, torch.zeros(2, 3, 16, 16))
    return network


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "inverted": Inverted,
    "norms": Norms,
    "branches": Branches,
    "mobilenet_v3": lambda: models.mobilenet_v3_small(width_mult=0.25, num_classes=3),
    "resnet": lambda: models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=3),
    "convnext": _convnext,
    "vit": lambda: models.VisionTransformer(16, 8, 2, 2, 16, 32, dropout=0.1, num_classes=3),
    "squeezenet": lambda: models.squeezenet1_1(num_classes=3),
    "side branches": _side_branches,
    "concatenating": networks.Concatenating,
}


def recipe_of(scheme: str = "full", size: int = 16, **changed: Any) -> Recipe:
    return make_recipe(network="nets:net", scheme=scheme, image_size=size, **changed)


def as_in_bundle(network: LeanNetwork, scheme: str = "full", size: int = 16) -> nn.Module:
    """Return a copy that runs by the files of a bundle, as JSON gives them back."""
    files = lean_files(network.stock, recipe_of(scheme, size), network.lean_plan)
    return run_as_in_bundle(copy.deepcopy(network.stock), files)


@pytest.mark.parametrize(
    ("name", "level", "count"),
    [
        *((name, "lean", 1) for name in NETWORKS),
        *((name, "lean", 3) for name in ("inverted", "norms", "resnet")),
        *((name, "recomputed", 1) for name in ("inverted", "norms", "branches", "vit")),
    ],
)
def test_the_bits_of_stock_pytorch(name: str, level: Level, count: int) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]()
    size = 16 if name != "squeezenet" else 32
    images = torch.randn(4, 3, size, size)
    with torch.no_grad():
        network.train()(images)  # lazy layers get their shapes
    found = as_in_bundle(lean_copy(network, images, level, count), size=size)
    # The gradients of slices may be laid out in another way.
    assert_same(network, found, images, steps=2, tolerance=0.0 if count == 1 else 1e-30)


@pytest.mark.parametrize(
    ("name", "count"), [("mobilenet_v3", 1), ("mobilenet_v3", 3), ("resnet", 3)]
)
def test_the_same_bits_in_channels_last_down_to_one_pixel(name: str, count: int) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    planned = lean_copy(network, images, "lean", count)
    assert_same(network, as_in_bundle(planned), images, tolerance=0.0 if count == 1 else 1e-30)


@pytest.mark.parametrize("name", ["inverted", "mobilenet_v3", "resnet", "convnext"])
def test_chunks_agree_in_double_precision(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().double().train()
    images = torch.randn(4, 3, 48, 48, dtype=torch.double)
    planned = lean_copy(network, images, "chunked", 3)
    assert "chunked" in repr(planned.lean_plan)
    found = as_in_bundle(planned, size=48)
    assert_same(network, found, images, tolerance=1e-11)


@pytest.mark.parametrize(
    ("scheme", "level"), [("full", "chunked"), ("bias", "recomputed"), ("last", "lean")]
)
def test_a_step_holds_what_the_engine_holds_to_the_byte(scheme: str, level: Level) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = models.mobilenet_v3_small(width_mult=0.25, num_classes=3)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    planned = at_level(lean(network, images, scheme), level, 2)
    settings = StepSettings(scheme=scheme)
    expected = measure_peak(planned, images, labels, settings=settings).peak_bytes
    found = as_in_bundle(planned, scheme, 32)
    assert measure_peak(found, images, labels, settings=settings).peak_bytes == expected


def test_without_gradients_and_in_evaluation_it_is_the_stock_network() -> None:
    network = NETWORKS["inverted"]().eval()
    images = torch.randn(2, 3, 16, 16)
    found = as_in_bundle(lean(copy.deepcopy(network).train(), images)).eval()
    assert torch.equal(found(images), network(images))
    outputs = []
    for own in (found, network):
        torch.manual_seed(0)
        with torch.no_grad():
            outputs.append(own.train()(images))
    assert torch.equal(*outputs)
    assert found.state_dict().keys() == network.state_dict().keys()


def test_what_would_be_wrong_is_refused_in_one_line() -> None:
    images = torch.randn(2, 3, 16, 16)
    found = as_in_bundle(lean(NETWORKS["inverted"]().train(), images))
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(RuntimeError, match="leave autocast off"),
    ):
        found(images)
    loss = found(images).sum()
    with pytest.raises(RuntimeError, match="leave create_graph off"):
        torch.autograd.grad(loss, list(found.parameters()), create_graph=True)
    files = lean_files(
        models.squeezenet1_1(),
        recipe_of(size=32),
        lean(NETWORKS["squeezenet"](), torch.zeros(2, 3, 32, 32)).lean_plan,
    )
    newer = files._replace(steps=files.steps.replace('"version":1', '"version":2'))
    with pytest.raises(ValueError, match=r"lean.json has version 2, and lean.py reads version 1"):
        run_as_in_bundle(nn.Identity(), newer)


def test_gradients_that_the_steps_leave_out_are_refused() -> None:
    images = torch.randn(2, 3, 16, 16)
    found = as_in_bundle(lean(NETWORKS["inverted"]().train(), images, "bias"), "bias")
    found(images).sum().backward()
    given = images.clone().requires_grad_()
    with pytest.raises(RuntimeError, match="no step for a gradient that is needed"):
        found(given).sum().backward()
    found.requires_grad_(requires_grad=True)
    with pytest.raises(RuntimeError, match="no step for a gradient that is needed"):
        found(images).sum().backward()


def _halved(x: Tensor) -> Tensor:
    return x / 2


torch.fx.wrap("_halved")


class CallsOthers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU6())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(_halved(self.stem(x))).mean((2, 3))


def test_functions_of_other_packages_leave_the_files_out(tmp_path: Path) -> None:
    network = CallsOthers()
    plan = lean(network, torch.zeros(16, 3, 16, 16), budget="least").lean_plan
    with pytest.raises(NetworkError, match="_halved, which is not PyTorch's"):
        lean_files(network, recipe_of(), plan)
    exported = Exported(network=network, recipe=recipe_of(), images=torch.zeros(1), plan=plan)
    (line,) = FORMATS["pytorch"].write(exported, "", tmp_path)
    assert "lean.py and lean.json are left out" in line
    assert not (tmp_path / "lean.py").exists()


def _operators(kind: type[Op] = Op) -> Iterator[str]:
    for own in kind.__subclasses__():
        if not inspect.isabstract(own) and own.__module__.startswith("dse.engines."):
            yield own.__name__
        yield from _operators(own)


def test_the_module_has_every_operator_of_the_engine() -> None:
    source = Path(bundle.__file__).with_name("bundle_files").joinpath("lean.py").read_text("utf-8")
    names = ast.parse(source.partition("KINDS = ")[2].partition("# fmt")[0].strip(), mode="eval")
    assert {one.id for one in ast.walk(names) if isinstance(one, ast.Name)} == set(_operators())


def test_the_module_has_no_more_than_the_network_needs() -> None:
    def files(name: str) -> LeanFiles:
        network = NETWORKS[name]()
        planned = lean(network, torch.zeros(16, 3, 16, 16), budget="least")
        return lean_files(network, recipe_of(), planned.lean_plan)

    source = files("vit").source
    assert "class LayerNorm" in source
    assert "class BatchNorm" not in source
    assert len(source.splitlines()) < 600
    compile(source, "lean.py", "exec")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lean bundle of a small ResNet, beside a folder of images."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("lean")
    name, size = "torchvision:shufflenet_v2_x0_5", 16
    network = rebuild(name, classes=3, inputs=InputSpec.image(size), candidate=Candidate()).eval()
    images = torch.randn(4, 3, size, size)
    apply_scheme(network, images, "full")
    plan = lean(network, images).lean_plan
    network.eval()
    groups = find_groups(network, images[:1])
    recipe = recipe_of(
        channels={one.name: one.channels for one in groups},
        engine="lean",
        plan=json.loads(plan_to_json(plan)),
        trained=tuple(n for n, _ in network.named_parameters()),
        preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)),
        peak_bytes=measure_peak(
            lean(copy.deepcopy(network), images),
            images,
            torch.tensor([0, 1, 2, 0]),
            settings=StepSettings(optimizer="sgd"),
        ).peak_bytes,
    ).model_copy(update={"network": name})

    def add(where: Path, scored: Recipe) -> None:
        source = FORMATS["pytorch"].prepare(network, images, None)
        exported = Exported(network=network, recipe=scored, images=images, plan=plan)
        FORMATS["pytorch"].write(exported, source, where)

    bundle.write(place / "bundle", network=network, recipe=recipe, score=lambda _: SCORED, add=add)
    rng = np.random.default_rng(0)
    for label in "abc":
        (place / "images" / label).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / "images" / label / f"{number}.png")
    return place / "bundle"


@pytest.mark.parametrize("trains", ["head", "stem"])
def test_modes_that_the_steps_were_not_made_for_run_as_stock_pytorch(trains: str) -> None:
    images = torch.randn(2, 3, 16, 16)
    network = NETWORKS["inverted"]()
    found = as_in_bundle(lean(network, images, f"only:{trains}"), f"only:{trains}")
    found.train()  # other batch statistics than planned
    assert_same(network.train(), found, images)


def run_python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_without_dse_its_gradients_are_those_of_stock_pytorch(folder: Path) -> None:
    found, count = run_python("-W", "error", "-c", ALONE, str(folder)).split()
    assert found == "True"
    assert int(count) > 100


def test_finetune_trains_it_lean_within_the_prediction(folder: Path, tmp_path: Path) -> None:
    alone = ALONE.partition("sys.path")[0]
    script = (
        f"{alone}import runpy; sys.argv = sys.argv[1:]; "
        "sys.path.insert(0, sys.argv[0].rpartition('/')[0]); "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    out = ("--out", str(tmp_path / "weights"), "--epochs", "1")
    printed = run_python(
        "-c", script, str(folder / "finetune.py"), str(folder.parent / "images"), *out
    )
    assert "within" in printed
    predicted = json.loads((folder / "recipe.json").read_text("utf-8"))["peak_bytes"]
    held = int(printed.partition("a step held ")[2].partition(" bytes")[0].replace(",", ""))
    assert abs(held - predicted) <= 0.01 * predicted


def test_a_bundle_without_its_steps_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    where = tmp_path / "bundle"
    where.mkdir()
    for file in folder.iterdir():
        if file.name != "lean.json":
            (where / file.name).write_bytes(file.read_bytes())
    images = str(folder.parent / "images")
    done = subprocess.run(
        [sys.executable, str(where / "finetune.py"), images],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "lean.json is missing: without it" in done.stderr
    assert "Traceback" not in done.stderr


def test_verify_proves_the_gradients(folder: Path) -> None:
    found = perform(StepRequest(bundle=str(folder), gradients=True))
    assert found.gradient_difference == 0.0


@pytest.mark.slow
def test_verify_runs_no_changed_lean_file(folder: Path, tmp_path: Path) -> None:
    found = verify(folder, ram_bytes=None)
    assert (found.lean_as_written, found.lean_gradient_difference) == (True, 0.0)
    where = tmp_path / "bundle"
    where.mkdir()
    for file in folder.iterdir():
        (where / file.name).write_bytes(file.read_bytes())
    text = (
        (where / "lean.json").read_text("utf-8").replace('"in_place":[false', '"in_place":[true', 1)
    )
    (where / "lean.json").write_text(text, "utf-8")
    recipe = json.loads((where / "recipe.json").read_text("utf-8"))
    recipe["digests"]["lean.json"] = hashlib.sha256(text.encode()).hexdigest()
    (where / "recipe.json").write_text(json.dumps(recipe), "utf-8")
    found = verify(where, ram_bytes=None)
    assert (found.lean_as_written, found.lean_gradient_difference) == (False, None)
