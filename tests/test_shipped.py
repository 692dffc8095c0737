import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch
import torchvision
from pydantic import BaseModel

from dse import shipped as room
from dse.config import Study, load_space, load_study, resolve_space, with_budgets
from dse.data import check_data
from dse.pruning.groups import find_groups
from dse.shipped import shipped, starter_study

STUDIES = [
    "cifar10_mobilenet_v2",
    "digits",
    "digits_joint",
    "digits_lora",
    "flowers102_mobilenet_v2",
    "image_folder_resnet18",
    "imagenet_lite0",
    "pets_mobilenet_v2",
]


def test_studies_and_spaces_are_found_by_name() -> None:
    assert list(shipped("studies")) == STUDIES
    assert list(shipped("search_spaces")) == ["auto", "mobilenet_v2", "resnet"]


def test_an_installed_package_carries_them_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "shipped_files" / "studies"
    inside.mkdir(parents=True)
    (inside / "one.toml").touch()
    monkeypatch.setattr(room, "_PACKAGE", tmp_path)
    assert shipped("studies") == {"one": inside / "one.toml"}
    assert shipped("search_spaces") == {}


@pytest.mark.parametrize("name", STUDIES)
def test_each_study_is_named_like_its_file_and_complete(name: str, tmp_path: Path) -> None:
    needs_root = name in ("image_folder_resnet18", "imagenet_lite0")
    study = load_study(name, overrides=[f"data.root={tmp_path}"] if needs_root else [])
    assert study.name == name
    assert study.description


@pytest.mark.parametrize(
    ("name", "classes"),
    [("cifar10_mobilenet_v2", 10), ("flowers102_mobilenet_v2", 102), ("pets_mobilenet_v2", 37)],
)
def test_studies_to_be_downloaded_can_be_checked_without(
    name: str, classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSE_CACHE", str(tmp_path))
    summary = check_data(load_study(name).data)
    assert (summary.classes, summary.to_download) == (classes, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", list(shipped("search_spaces")))
def test_each_space_is_named_like_its_file(name: str) -> None:
    space = load_space(name)
    assert space.name == name
    assert space.description


@pytest.mark.parametrize(
    ("space", "network"),
    [
        ("auto", "resnet18"),
        ("mobilenet_v2", "mobilenet_v2"),
        ("resnet", "resnet18"),
        ("resnet", "resnet50"),
    ],
)
def test_every_pattern_of_a_space_matches_on_its_networks(space: str, network: str) -> None:
    built = getattr(torchvision.models, network)(num_classes=3).eval()
    groups = find_groups(built, torch.zeros(1, 3, 32, 32))
    choices = resolve_space(load_space(space), groups)
    assert [choice.name for choice in choices] == [group.name for group in groups]
    assert all(choice.fixed is None for choice in choices)
    assert all(choice.channels % choice.multiple == 0 for choice in choices)


def test_the_starter_study_is_the_digits_study_and_explains_every_key(tmp_path: Path) -> None:
    path = tmp_path / "my_study.toml"
    path.write_text(starter_study(), encoding="utf-8")
    study = load_study(path)
    digits = load_study("digits")
    own_budgets = with_budgets(study, digits.search.budget_bytes)
    assert own_budgets.meaning_digest == digits.meaning_digest
    written = re.findall(r"^(?:# )?\[{0,2}([\w.]+)(?: =|\])", starter_study(), re.MULTILINE)
    for key in _keys(Study):
        assert key in written, f"the starter study says nothing of {key}"


def _keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = list(_models(field.annotation))
        if not inner:
            yield name
        for one in inner:
            yield from _keys(one)


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
