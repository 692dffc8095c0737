"""Transforms of torchvision that a study names."""

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2

from dse.config import DataConfig, TaskConfig, load_study
from dse.data import load_data, transforms, transforms_of
from dse.data.transforms import Transforms
from dse.errors import ConfigError, DataError, NetworkError
from dse.inputs import InputSpec
from dse.search.plan import dry_run
from dse.tasks.task import TaskRequest
from support.task_studies import write_study

SHAPE = (3, 12, 10)
FLIP = {"name": "RandomHorizontalFlip"}


def noise(count: int = 6, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (count, channels, *SHAPE[1:])
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("spec", "alike"),
    [
        ({"name": "RandomHorizontalFlip", "p": 0.5}, v2.RandomHorizontalFlip(0.5)),
        (
            {"name": "RandomResizedCrop", "scale": [0.5, 1.0], "interpolation": "nearest"},
            v2.RandomResizedCrop((12, 10), (0.5, 1.0), interpolation=v2.InterpolationMode.NEAREST),
        ),
        ({"name": "AutoAugment", "policy": "svhn"}, v2.AutoAugment(v2.AutoAugmentPolicy("svhn"))),
        (
            {"name": "RandomApply", "p": 0.3, "transforms": [{"name": "ColorJitter", "hue": 0.2}]},
            v2.RandomApply([v2.ColorJitter(hue=0.2)], 0.3),
        ),
    ],
)
def test_they_are_torchvisions(spec: dict[str, Any], alike: v2.Transform) -> None:
    images = noise()
    torch.manual_seed(7)
    expected = torch.stack(
        [alike(tv_tensors.Image(one)).as_subclass(torch.Tensor) for one in images]
    )
    assert torch.equal(Transforms([spec], shape=SHAPE)(images, seed=7), expected)


@given(seed=st.integers(0, 2**62))
def test_a_seed_repeats_them_and_leaves_the_generator_alone(seed: int) -> None:
    made = Transforms([{"name": "RandomCrop", "padding": 2}, FLIP], shape=SHAPE)
    state = torch.get_rng_state()
    first = made(noise(), seed=seed)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(made(noise(), seed=seed), first)
    assert first.dtype == torch.uint8


@pytest.mark.parametrize(
    "spec",
    [
        FLIP,
        {"name": "RandomAffine", "degrees": 40, "translate": [0.3, 0.3]},
        {"name": "RandomCrop", "padding": 3},
        {"name": "RandomPerspective", "interpolation": "nearest"},
    ],
)
def test_masks_move_with_their_images_and_are_filled_with_what_is_ignored(
    spec: dict[str, Any],
) -> None:
    made = Transforms([{**spec, "fill": 9} if spec != FLIP else spec], shape=SHAPE, ignore=77)
    images = noise(16) // 64  # values from 0 to 3, so that 9 and 77 are fillings
    samples = torch.cat([images, images[:, :1]], dim=1)
    after = made(samples, seed=3)
    assert not torch.equal(after, samples)
    red, masks = after[:, 0], after[:, -1]
    assert torch.equal(torch.where(red == 9, 77, red), masks)
    assert spec == FLIP or bool((masks == 77).any())


def test_colours_change_alone_where_there_are_masks() -> None:
    made = Transforms([{"name": "RandomInvert", "p": 1.0}], shape=SHAPE, ignore=255)
    samples = noise(channels=4)
    after = made(samples, seed=0)
    assert torch.equal(after[:, :3], 255 - samples[:, :3])
    assert torch.equal(after[:, 3], samples[:, 3])


def test_fractions_of_any_channels_are_taken() -> None:
    made = Transforms([FLIP], shape=(5, 12, 10), dtype=torch.float32)
    samples = torch.rand(4, 5, 12, 10)
    after = made(samples, seed=1)
    assert all(torch.equal(b, a) or torch.equal(b, a.flip(2)) for a, b in zip(samples, after))  # noqa: B905


@pytest.mark.parametrize(
    ("specs", "reason"),
    [
        ([{"name": "RandomHorizontalFlp"}], "did you mean 'RandomHorizontalFlip'?"),
        ([{"name": "os.system"}], "is no transform of torchvision.transforms.v2"),
        ([{"name": "functional"}], "is no transform of torchvision.transforms.v2"),
        ([{**FLIP, "prob": 1}], "RandomHorizontalFlip has no option 'prob': it has p"),
        ([{"name": "ColorJitter", "brightnes": 1}], "did you mean 'brightness'?"),
        ([{**FLIP, "p": 3}], "RandomHorizontalFlip can't be made of its options: "),
        ([{**FLIP, "p": "often"}], "RandomHorizontalFlip can't be made of its options: "),
        ([{"name": "RandomRotation"}], "RandomRotation needs the option 'degrees'"),
        ([{"name": "RandomApply"}], "RandomApply needs the option 'transforms'"),
        ([{"name": "RandomApply", "transforms": "x"}], "transforms must be a list of tables"),
        ([{"name": "RandomApply", "transforms": [3]}], "3 is no transform"),
        ([{"name": "Resize", "size": [8, 8]}], "Resize makes 3x8x8 uint8 of 3x12x10 uint8"),
        ([{"name": "RandomZoomOut", "p": 0.01}], "it must leave shape and type as they are"),
        (
            [{"name": "RandomApply", "p": 0.01, "transforms": [{"name": "CenterCrop", "size": 4}]}],
            "CenterCrop makes 3x4x4 uint8",
        ),
        ([{"name": "ConvertImageDtype"}], "ConvertImageDtype makes 3x12x10 float32"),
        ([{"name": "Grayscale"}], "Grayscale makes 1x12x10 uint8"),
        ([{"name": "ToPILImage"}], "ToPILImage returns a Image, not an image"),
        ([{"name": "FiveCrop"}], "FiveCrop returns a tuple"),
        ([{"name": "RandomCrop", "size": 99}], "RandomCrop fails on an image of shape 3x12x10"),
        ([{"name": "GaussianBlur", "kernel_size": 99}], "GaussianBlur fails on an image"),
        ([{"name": "MixUp"}], "'MixUp' can't be named: it mixes the labels"),
        ([{"name": "Lambda", "lambd": "print"}], "'Lambda' can't be named: it takes a function"),
        ([], "transforms must be a list of tables"),
    ],
)
def test_what_can_not_be_applied_is_named_before_any_training(
    specs: list[dict[str, Any]], reason: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as error:
        Transforms(specs, shape=SHAPE)
    assert "\n" not in str(error.value)


def test_those_that_leave_masks_behind_are_refused() -> None:
    with pytest.raises(ValueError, match="RandAugment fails on an image with its mask"):
        Transforms([{"name": "RandAugment"}], shape=SHAPE, ignore=255)


def test_they_are_for_images() -> None:
    config = DataConfig(name="digits", transforms=(FLIP,))
    for inputs in (InputSpec(shape=(2, 64)), InputSpec(shape=(3, 4, 5), kind="int64")):
        with pytest.raises(DataError, match="transforms are for images"):
            transforms_of(config, inputs)
    masked = transforms_of(
        config, InputSpec(shape=SHAPE), task=TaskConfig(kind="segmentation", ignore=3)
    )
    assert masked is not None
    assert masked.ignore == 3


def test_training_batches_are_augmented_by_them_and_no_others() -> None:
    config = DataConfig(name="digits", labels=("0", "1"), transforms=({**FLIP, "p": 1.0},))
    plain = load_data(config.model_copy(update={"transforms": None}), seed=0, task=TaskRequest())
    data = load_data(config, seed=0)
    assert data.train.varies
    assert not data.selection.varies
    for (images, _), (same, _) in zip(
        data.train.batches(8, seed=1), plain.train.batches(8, seed=1), strict=True
    ):
        assert torch.equal(images, same.flip(3))
    assert torch.equal(next(data.train.batches(8))[0], next(plain.train.batches(8))[0])
    assert data.summary is not None
    assert data.summary.augmentation == (
        "RandomHorizontalFlip(p=1.0) of torchvision on training images"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("transforms = []", "must be a list of 1 to 32 tables"),
        ('transforms = "flip"', "must be a list of 1 to 32 tables"),
        ("transforms = [{p = 1}]", "must hold tables with a name"),
        ('transforms = [{name = "Resize", size = 5000}]', "a number up to 4096"),
        ('transforms = [{name = "Resize", size = [8, nan]}]', "a number up to 4096"),
        ('transforms = [{name = "Pad", fill = {a = 1}}]', "give a word, a switch, a number"),
        ('augment = "flip"\ntransforms = [{name = "Resize"}]', "stands beside data.transforms"),
    ],
)
def test_their_form_is_checked_with_the_study(tmp_path: Path, text: str, reason: str) -> None:
    path = write_study(tmp_path, "regression")
    path.write_text(path.read_text("utf-8").replace('augment = "flip"', text), "utf-8")
    with pytest.raises(ConfigError, match=r"data\.(transforms|augment)") as error:
        load_study(path)
    assert reason in str(error.value)


def test_sizes_that_the_search_varies_are_tried_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_study(tmp_path, "segmentation")
    text = path.read_text("utf-8")

    def planned(transforms: str) -> Any:
        path.write_text(text.replace('augment = "flip"', f"transforms = [{transforms}]"), "utf-8")
        return dry_run(load_study(path))

    assert "image_size" in planned('{name = "RandomResizedCrop", scale = [0.5, 1.0]}').joint
    assert "image_size" not in planned('{name = "RandomResizedCrop", size = [16, 16]}').joint
    with pytest.raises(DataError, match=r"8x8 px, which the search varies, data\.transforms: Ga"):
        planned('{name = "GaussianBlur", kernel_size = 17}')
    path.write_text(path.read_text("utf-8") + "\n[space.joint]\nimage_size = [8, 16]\n", "utf-8")
    text = path.read_text("utf-8").replace('{name = "GaussianBlur", kernel_size = 17}', "%s")
    path.write_text(text.replace("%s", '{name = "RandomCrop", size = 16}'), "utf-8")
    with pytest.raises(NetworkError, match=r"data\.transforms give them a size"):
        dry_run(load_study(path))


def test_the_module_needs_torch_and_torchvision_alone() -> None:
    tree = ast.parse(inspect.getsource(transforms))
    names = {
        (one.module if isinstance(one, ast.ImportFrom) else one.names[0].name) or ""
        for one in ast.walk(tree)
        if isinstance(one, ast.Import | ast.ImportFrom)
    }
    allowed = {"torch", "torchvision", "inspect", "warnings", "collections", "contextlib"}
    assert {name.partition(".")[0] for name in names} <= allowed | {"difflib", "typing"}
