import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dse.candidate import Candidate
from dse.deploy import bundle
from dse.deploy.pte.file import PTE_FILE
from dse.deploy.recipe import Recipe
from dse.deploy.step_process import StepRequest, perform, run_steps
from dse.deploy.verify import check_files, verify
from dse.errors import ConfigError, ExportError
from dse.footprint.rebuild import rebuild
from dse.inputs import InputSpec
from dse.metrics import Confusion
from dse.networks.build import build_network
from dse.networks.examples import example_input
from dse.pruning.groups import find_groups
from support.figures import figures_of
from support.recipes import make_recipe

NETWORK = "torchvision:squeezenet1_1"
SCORED = figures_of(Confusion(np.eye(2, dtype=np.int64)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle of a pruned network, with a README."""
    candidate = Candidate(channels={"features.0": 8})
    network = rebuild(NETWORK, classes=2, inputs=InputSpec.image(32), candidate=candidate).eval()
    recipe = make_recipe(
        network=NETWORK, classes=2, labels=("a", "b"), channels=_kept(8), batch_size=8
    )
    bundle.write(
        tmp_path / "bundle",
        network=network,
        recipe=recipe,
        score=lambda _: SCORED,
        add=lambda where, _: (where / "README.md").write_text("read me") and None,
    )
    return tmp_path / "bundle"


def _kept(first: int) -> dict[str, int]:
    groups = find_groups(build_network(NETWORK, classes=2), example_input(1, 32))
    return {one.name: first if one.name == "features.0" else one.channels for one in groups}


def change(folder: Path, **changed: object) -> None:
    path = folder / "recipe.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changed}), "utf-8")


def lead_out(folder: Path) -> None:
    """Name a file outside, with its right digest, in place of one inside."""
    outside = folder.parent / "README.md"
    (folder / "README.md").rename(outside)
    (folder / "README.md").symlink_to(outside)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda f: (f / "README.md").write_text("other"), "README.md was changed or is damaged"),
        (lambda f: (f / "README.md").unlink(), "README.md can't be read"),
        (lambda f: (f / "network.py").write_text("x"), "network.py isn't in the recipe"),
        (lambda f: (f / "network.py").symlink_to("/nowhere"), "network.py isn't in the recipe"),
        (lead_out, "README.md can't be read: it is a link"),
        (lambda f: change(f, version=3), "has version 3, this release reads up to 2"),
        (lambda f: os.truncate(f / "weights.safetensors", 9), "weights.safetensors was changed"),
        (lambda f: change(f, network="os:system"), "runs code of its own"),
        (lambda f: change(f, batch_size=2**40), "a batch of 1099511627776 samples of 3x32x32 "),
        (lambda f: change(f, batch_size=0), "a batch of 0 samples"),
        (lambda f: change(f, digests={}), "isn't in the recipe"),
    ],
)
def test_a_changed_bundle_is_refused_in_one_line_before_anything_runs(
    folder: Path, damage: Callable[[Path], object], complaint: str
) -> None:
    damage(folder)
    with pytest.raises(ExportError, match=complaint) as caught:
        verify(folder, ram_bytes=None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("named", ["in the recipe", "forged", "missing"])
def test_a_program_for_executorch_must_be_the_recipes_own(folder: Path, named: str) -> None:
    (folder / PTE_FILE).write_bytes(b"a program that someone else put here")
    digests = Recipe.read(folder / "recipe.json").digests
    own = hashlib.sha256(b"the program that was exported").hexdigest()
    if named == "forged":
        digests = {**digests, PTE_FILE: "0" * 64}
    elif named == "in the recipe":
        digests = {**digests, PTE_FILE: own}
    change(folder, digests=digests)
    with pytest.raises(ExportError, match=r"network\.pte (was changed|isn't in the recipe)"):
        verify(folder, ram_bytes=None)


def test_digests_of_other_places_are_never_opened(folder: Path) -> None:
    recipe = Recipe.read(folder / "recipe.json")
    digests = {**recipe.digests, "../../etc/passwd": "0", "/etc/passwd": "0"}
    found = check_files(folder, recipe.model_copy(update={"digests": digests}))
    assert found == ("README.md", "weights.safetensors")


def test_no_size_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--ram is 0 bytes"):
        verify(folder, ram_bytes=0)


def test_a_bundle_holds_less_than_the_unpruned_network(folder: Path) -> None:
    request = StepRequest(bundle=str(folder))
    pruned = perform(request).peak_bytes
    whole = perform(StepRequest(bundle=str(folder), unpruned=True)).peak_bytes
    assert pruned is not None
    assert whole is not None
    assert pruned < whole


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux caps a process")
def test_under_the_cap_the_bundle_completes_and_the_unpruned_network_fails(folder: Path) -> None:
    found = verify(folder, ram_bytes=None)
    assert (found.completed, found.unpruned_completed, found.fits) == (True, False, True)
    assert found.pruned
    less = found.measured_peak_bytes * 9 // 10
    assert not run_steps(StepRequest(bundle=str(folder), ram_bytes=less)).completed


TINY = """
from torch import nn
def build(num_classes):
    def block(inputs, outputs, groups=1):
        return (nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups), nn.BatchNorm2d(outputs),
                nn.ReLU6())
    return nn.Sequential(*block(3, 16), *block(16, 48), *block(48, 48, 48), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(48, num_classes))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux caps a process")
def test_a_step_of_a_few_megabytes_fits_one_percent_above_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "tiny_factory.py").write_text(TINY, "utf-8")
    recipe = make_recipe(
        network="tiny_factory:build", image_size=16, batch_size=8, optimizer="sgd-momentum"
    )
    own = build_network(
        recipe.network, classes=3, inputs=InputSpec.image(16), search_path=tmp_path
    ).eval()
    groups = find_groups(own, example_input(1, 16))
    recipe = recipe.model_copy(update={"channels": {one.name: one.channels for one in groups}})
    bundle.write(
        tmp_path / "b", network=own, recipe=recipe, score=lambda _: SCORED, search_path=tmp_path
    )
    found = verify(tmp_path / "b", ram_bytes=None, trust=True, search_path=tmp_path)
    assert found.measured_peak_bytes < 5 * 2**20
    assert (found.completed, found.pruned) == (True, False)
    less = found.measured_peak_bytes * 4 // 5
    request = StepRequest(
        bundle=str(tmp_path / "b"), ram_bytes=less, trust=True, search_path=str(tmp_path)
    )
    assert not run_steps(request).completed
