"""What timm and Hugging Face networks say about their images, as defaults of a study."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dse.config import DataConfig, Study, load_study
from dse.data.decode import shaped
from dse.data.reading import Reading
from dse.image_settings import image_settings
from support.images import picture, write_folder

STUDY = """
name = "x"
[network]
name = "{network}"
[data]
name = "{data}"
{keys}
[space]
ratio = [0.0, 0.5]
[search]
budgets = ["50 %"]
trials = 1
"""


def study(folder: Path, network: str, keys: str = "", *, data: str = "folder") -> Study:
    root = 'root = "."' if data == "folder" else ""
    file = folder / "study.toml"
    file.write_text(STUDY.format(network=network, data=data, keys=f"{root}\n{keys}"))
    return load_study(file)


def settings_of(data: DataConfig) -> tuple[Any, ...]:
    return data.image_size, data.mean, data.std, data.interpolation, data.crop


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_timms_own_settings_are_defaults_that_a_study_may_change(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    own = timm.models.get_pretrained_cfg("mobilenetv4_conv_small")
    found = study(tmp_path, "timm:mobilenetv4_conv_small").data
    assert settings_of(found) == (own.input_size[1], own.mean, own.std, "bicubic", own.crop_pct)
    changed = study(tmp_path, "timm:mobilenetv4_conv_small", "image_size = 32\ncrop = 1.0").data
    assert settings_of(changed) == (32, own.mean, own.std, "bicubic", 1.0)


def test_digits_and_other_networks_keep_their_own_defaults(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    digits = study(tmp_path, "timm:test_vit", data="digits").data
    assert settings_of(digits) == (32, (0.3052,) * 3, (0.3236,) * 3, "bilinear", 1.0)
    plain = study(tmp_path, "torchvision:resnet18").data
    assert settings_of(plain) == (32, *IMAGENET, "bilinear", 1.0)


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (
            {"size": {"height": 48, "width": 48}, "resample": 3},
            (48, "bicubic", 1.0),
        ),
        (
            {"size": {"shortest_edge": 64}, "crop_size": 56, "do_center_crop": True},
            (56, "bilinear", 0.875),
        ),
        ({"size": 40, "crop_pct": 0.5, "resample": 1}, (40, "lanczos", 0.5)),
        ({"size": {"height": 48, "width": 32}}, None),
        ({"size": 40, "do_normalize": False}, None),
        ({"size": -3}, None),
        ([], None),
    ],
)
def test_a_processor_of_a_hugging_face_folder(
    tmp_path: Path, processor: Any, expected: tuple[Any, ...] | None
) -> None:
    if isinstance(processor, dict):
        processor |= {"image_mean": [0.5] * 3, "image_std": [0.25, 0.25, 0.5]}
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "preprocessor_config.json").write_text(json.dumps(processor))
    found = image_settings("hf:net", folder=tmp_path)
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert (found.image_size, found.interpolation, found.crop) == expected
    assert (found.mean, found.std) == ((0.5,) * 3, (0.25, 0.25, 0.5))
    data = study(tmp_path, "hf:net").data
    assert settings_of(data)[0] == expected[0]


@pytest.mark.parametrize(
    "change",
    ['"resample": [2]', '"image_mean": [1' + "0" * 400 + ", 0, 0]", '"deep": ' + "[" * 200_000],
    ids=["list", "huge", "deep"],
)
def test_a_hostile_processor_is_no_traceback(tmp_path: Path, change: str) -> None:
    (tmp_path / "net").mkdir()
    text = (
        '{"size": 32, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], ' + change + "}"
    )
    (tmp_path / "net" / "preprocessor_config.json").write_text(text)
    found = image_settings("hf:net", folder=tmp_path)
    assert found is None or found.interpolation == "bicubic"
    assert image_settings("hf:" + "a" * 5000, folder=tmp_path) is None


def test_a_network_that_nobody_knows_has_no_settings(tmp_path: Path) -> None:
    for name in ("timm:no_such_network", "hf:nowhere/at-all", "nets:build"):
        assert image_settings(name, folder=tmp_path) is None


def test_new_keys_at_their_defaults_leave_digests_as_they_were(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 1, "dog": 1})
    plain = study(tmp_path, "torchvision:resnet18")
    dump = plain.model_dump(mode="json", exclude_none=True)
    assert dump["data"]["crop"] == 1.0
    cropped = study(tmp_path, "torchvision:resnet18", "crop = 0.9")
    assert plain.meaning_digest != cropped.meaning_digest
    spelt = study(tmp_path, "torchvision:resnet18", 'crop = 1.0\ninterpolation = "bilinear"')
    assert plain.meaning_digest == spelt.meaning_digest


@pytest.mark.parametrize(("width", "height"), [(30, 20), (20, 30), (16, 16)])
def test_a_crop_is_a_larger_image_cut_in_the_middle(width: int, height: int) -> None:
    image = picture(5, width=width, height=height)
    side = min(width, height)
    left, top = (width - side / 2) / 2, (height - side / 2) / 2
    box = (left, top, left + side / 2, top + side / 2)
    expected = image.resize((8, 8), Image.Resampling.BICUBIC, box=box)
    reading = Reading(height=8, width=8, interpolation="bicubic", crop=0.5)
    assert np.array_equal(shaped(image, reading), np.asarray(expected).transpose(2, 0, 1))
