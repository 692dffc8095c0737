"""Whatever stands in a bundle's recipe, loading gives a network or one clear line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import dse
from dse.candidate import Candidate
from dse.deploy import bundle
from dse.deploy.recipe import Recipe
from dse.errors import ExportError
from dse.footprint.rebuild import rebuild
from dse.inputs import InputSpec
from dse.metrics import Confusion
from support.figures import figures_of
from support.recipes import make_recipe

NETWORK = "torchvision:squeezenet1_1"

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 1, 2**31, 2**63, 10**300])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", "full", "from:features", "only:", "lite-residual", "os:system", "../x"])
    | st.sampled_from([".".join(["a"] * 900), "torchvision:resnet18", "torchvision:", NETWORK])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.just("weights"), inner, max_size=4)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(sorted(Recipe.model_fields))
CHANGES = st.dictionaries(KEYS | st.text(max_size=8), VALUES, min_size=1, max_size=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fuzzed")
    network: nn.Module = rebuild(
        NETWORK, classes=2, inputs=InputSpec.image(32), candidate=Candidate()
    ).eval()
    recipe = make_recipe(network=NETWORK, classes=2, labels=("a", "b"))
    scored = figures_of(Confusion(np.eye(2, dtype=np.int64)))
    bundle.write(place, network=network, recipe=recipe, score=lambda _: scored)
    (place / "sound.txt").write_bytes((place / "recipe.json").read_bytes())
    return place


def load_whatever(folder: Path, content: bytes) -> None:
    (folder / "recipe.json").write_bytes(content)
    complaint = ""
    try:
        network = dse.load(folder)
    except ExportError as error:
        complaint = str(error)
    else:
        with torch.no_grad():
            assert network(torch.zeros(1, 3, 32, 32)).isfinite().all()
    assert "\n" not in complaint
    assert len(complaint) < 1000


def check_changes(folder: Path, changes: dict[str, Any]) -> None:
    sound = json.loads((folder / "sound.txt").read_bytes())
    load_whatever(folder, json.dumps({**sound, **changes}).encode())


def check_bytes(folder: Path, place: int, byte: int) -> None:
    content = bytearray((folder / "sound.txt").read_bytes())
    content[place % len(content)] = byte
    load_whatever(folder, bytes(content))


FAST = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
LONG = settings(FAST, max_examples=400)


@FAST
@given(changes=CHANGES)
def test_changed_values(folder: Path, changes: dict[str, Any]) -> None:
    check_changes(folder, changes)


@FAST
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_changed_bytes(folder: Path, place: int, byte: int) -> None:
    check_bytes(folder, place, byte)


@pytest.mark.slow
@LONG
@given(changes=CHANGES)
def test_many_changed_values(folder: Path, changes: dict[str, Any]) -> None:
    check_changes(folder, changes)


@pytest.mark.slow
@LONG
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_many_changed_bytes(folder: Path, place: int, byte: int) -> None:
    check_bytes(folder, place, byte)
