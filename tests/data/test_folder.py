import os
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from dse.data.folder import image_folder
from dse.data.reading import Reading
from dse.errors import DataError
from support.images import picture, write_folder


def test_each_subfolder_is_a_label(tmp_path: Path) -> None:
    write_folder(tmp_path, {"owl": 2, "cat": 3})
    source = image_folder(tmp_path, reading=Reading.square(8))
    assert source.labels == ("cat", "owl")
    assert source.train.targets.tolist() == [0, 0, 0, 1, 1]
    assert source.validation is None
    assert source.train.images.fetch(torch.arange(5)).shape == (5, 3, 8, 8)


def test_other_files_and_hidden_ones_are_passed_over(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 1, "owl": 1, ".hidden": 1, "cat/deeper": 1})
    (tmp_path / "cat" / "notes.txt").touch()
    (tmp_path / "cat" / ".hidden.png").touch()
    (tmp_path / "README.md").touch()
    picture(0).convert("RGB").save(tmp_path / "owl" / "LOUD.JPG")
    source = image_folder(tmp_path, reading=Reading.square(8))
    assert source.labels == ("cat", "owl")
    assert source.train.targets.tolist() == [0, 0, 1, 1]


def test_a_link_that_leads_back_up_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 2, "owl": 2})
    (tmp_path / "elsewhere").symlink_to(tmp_path / "cat")
    (tmp_path / "owl" / "more").symlink_to(tmp_path / "cat")
    assert image_folder(tmp_path, reading=Reading.square(8)).train.targets.tolist() == [
        0,
        0,
        1,
        1,
        *[2] * 4,
    ]
    for target in ("..", "."):
        link = tmp_path / "owl" / "up"
        link.symlink_to(target)
        assert f"owl/up is a link back to {(link.parent / target).resolve()}" in refusal(tmp_path)
        link.unlink()
    (tmp_path / "owl" / ".up").symlink_to("..")  # hidden, so it isn't followed
    assert image_folder(tmp_path, reading=Reading.square(8)).labels == ("cat", "elsewhere", "owl")


def test_a_large_image_without_a_suffix_is_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, {"cat": 1, "owl": 1})
    picture(0, width=15, height=10).save(tmp_path / "owl" / "bare", format="PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow warns above, and fails above 200
    assert image_folder(tmp_path, reading=Reading.square(8)).train.targets.tolist() == [0, 1, 1]


@pytest.mark.parametrize("name", ["val", "validation", "valid", "test"])
def test_a_validation_folder_beside_train_is_used(name: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 2, "owl": 2})
    write_folder(tmp_path / name, {"cat": 1, "owl": 1})
    source = image_folder(tmp_path, reading=Reading.square(8))
    assert source.labels == ("cat", "owl")
    assert source.validation is not None
    assert source.validation.targets.tolist() == [0, 1]


def test_val_goes_before_test_and_train_may_stand_alone(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 2, "owl": 2})
    assert image_folder(tmp_path, reading=Reading.square(8)).validation is None
    write_folder(tmp_path / "test", {"cat": 9, "owl": 9})
    write_folder(tmp_path / "val", {"cat": 1, "owl": 1})
    source = image_folder(tmp_path, reading=Reading.square(8))
    assert source.validation is not None
    assert len(source.validation.images) == 2


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        image_folder(root, reading=Reading.square(8))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_folders_and_files(tmp_path: Path) -> None:
    assert f"{tmp_path}/none does not exist: name a folder" in refusal(tmp_path / "none")
    (tmp_path / "file").touch()
    assert "file is not a folder" in refusal(tmp_path / "file")
    assert "does not exist: name a folder" in refusal(tmp_path / ("long" * 100))


def test_fewer_than_two_labels(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "image.png")
    assert "has no subfolders: put the images of each label into a subfolder" in refusal(tmp_path)
    write_folder(tmp_path, {"cat": 2})
    assert "has only the subfolder 'cat'" in refusal(tmp_path)


def test_labels_without_images(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 2, "owl": 0})
    assert f"{tmp_path}/owl holds no images: each label needs images (" in refusal(tmp_path)
    for name in ("cat/.a", "cat/.b", "owl/.c", "owl/.d", "owl/.e"):
        (tmp_path / name).touch()
    assert "owl holds no images (3 files: hidden, such as owl/.c, owl/.d): " in refusal(tmp_path)


def test_labels_must_be_the_same_in_both_parts(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 2, "owl": 2})
    write_folder(tmp_path / "val", {"cat": 2})
    assert f"in {tmp_path}, the label 'owl' is in train/ but not in val/: " in refusal(tmp_path)
    write_folder(tmp_path / "val", {"owl": 2, "yak": 2})
    assert "the label 'yak' is in val/ but not in train/" in refusal(tmp_path)


def parts_of(root: Path, labels: tuple[str, ...] | None = None) -> tuple[int, int | None]:
    source = image_folder(root, reading=Reading.square(8), labels=labels)
    return len(source.train.images), source.validation and len(source.validation.images)


@pytest.mark.parametrize(
    ("train", "other"),
    [
        ("Training", "Testing"),
        ("TRAIN", "VAL"),
        ("train_set", "valid-set"),
        ("trainData", "devData"),
        ("seg_train", "seg_test"),
        ("01_training_images", "02_validation_images"),
        ("train2017", "val2017"),
    ],
)
def test_parts_are_known_by_many_spellings(train: str, other: str, tmp_path: Path) -> None:
    write_folder(tmp_path / train, {"cat": 3, "owl": 2})
    write_folder(tmp_path / other, {"cat": 1, "owl": 1})
    source = image_folder(tmp_path, reading=Reading.square(8))
    assert source.labels == ("cat", "owl")
    assert parts_of(tmp_path) == (5, 2)
    assert (source.train_origin, source.validation_origin) == (f"{train}/", f"{other}/")


def test_a_part_wrapped_in_folders_is_found(tmp_path: Path) -> None:
    write_folder(tmp_path / "archive" / "data" / "train" / "train", {"cat": 3, "owl": 2})
    write_folder(tmp_path / "archive" / "data" / "test" / "test", {"cat": 1, "owl": 1})
    assert parts_of(tmp_path) == (5, 2)
    assert image_folder(tmp_path, reading=Reading.square(8)).notes == (
        f"the data lie in {tmp_path}/archive/data",
    )


def test_parts_inside_the_classes_are_taken(tmp_path: Path) -> None:
    for label in ("cat", "owl"):
        write_folder(tmp_path / label, {"train": 3, "test": 2})
    source = image_folder(tmp_path, reading=Reading.square(8))
    assert source.labels == ("cat", "owl")
    assert parts_of(tmp_path) == (6, 4)


def test_a_third_part_is_left_alone_and_named_as_unused(tmp_path: Path) -> None:
    for part in ("train", "val", "test", "extra"):
        write_folder(tmp_path / part, {"cat": 2, "owl": 2})
    assert parts_of(tmp_path) == (4, 4)
    assert image_folder(tmp_path, reading=Reading.square(8)).notes == (
        "test/ is not used: val/ is the validation part",
        "extra/ is not used: its name stands for no part (train, val or test)",
    )


def test_classes_named_like_parts_are_classes_where_images_lie_in_them(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train": 3, "bus": 2, "car": 2})
    assert image_folder(tmp_path, reading=Reading.square(8)).labels == ("bus", "car", "train")
    write_folder(tmp_path / "medical", {"test": 2, "control": 2})
    assert image_folder(tmp_path / "medical", reading=Reading.square(8)).labels == (
        "control",
        "test",
    )


def test_labels_decide_what_is_a_class(tmp_path: Path) -> None:
    for part in ("first", "second"):
        write_folder(tmp_path / part, {"cat": 2, "owl": 2})
    message = refusal(tmp_path)
    assert "first/, second/ in" in message
    assert "look like parts and not like classes: name the one to train on train/" in message
    assert parts_of(tmp_path, ("first", "second")) == (8, None)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("train/a", "train/b", "Training/a", "Training/b"), "both|all look like the train part"),
        (("train/a", "train/b", "val/a", "val/b", "valid/a"), "all look like the validation part"),
        (("val/a", "val/b", "test/a", "test/b"), "name the one to train on train/"),
        (("train", "test"), "hold images but no class folders"),
        (("train/a", "train/b", "val"), "val holds images but no class folders"),
        (("train/a", "train/b", "a", "b"), "has the part train/ and the class folder a/"),
    ],
)
def test_unclear_layouts_are_refused_by_name(
    folders: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    write_folder(tmp_path, dict.fromkeys(folders, 2))
    assert re.search(expected, refusal(tmp_path))


def test_labels_narrow_what_is_looked_at(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 2, "owl": 2, "empty": 0, "yak": 2})
    write_folder(tmp_path / "val", {"cat": 1, "owl": 1})
    (tmp_path / "__MACOSX" / "train").mkdir(parents=True)
    (tmp_path / "train" / "__MACOSX").mkdir()
    assert parts_of(tmp_path, ("cat", "owl")) == (4, 2)


def test_what_is_passed_over_is_counted_and_named(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 2, "owl": 2})
    picture(0).save(tmp_path / "cat" / "web.jfif", format="JPEG")
    picture(0).save(tmp_path / "cat" / "new.avif")
    picture(0).save(tmp_path / "owl" / "bare", format="JPEG")
    picture(0).save(tmp_path / "owl" / "odd.dat", format="PNG")
    picture(0).save(tmp_path / "loose.png")
    for name in ("._1.png", "Thumbs.db", "notes.txt", "more.txt", "photo.NEF"):
        (tmp_path / "cat" / name).write_bytes(b"II*\0" + bytes(60))
    os.mkfifo(tmp_path / "cat" / "pipe")
    (tmp_path / "cat" / "lost.png").symlink_to("nowhere")
    source = image_folder(tmp_path, reading=Reading.square(8))
    assert source.train.targets.tolist() == [0] * 4 + [1] * 4
    assert {one.reason: one.files for one in source.passed_over} == {
        "an image beside the class folders": 1,
        "hidden": 1,
        "written by a file manager": 1,
        "not an image that Pillow reads (.txt)": 2,
        "camera raw (.nef), which must be converted first": 1,
        "not a regular file": 1,
        "a link that leads nowhere": 1,
    }


def test_names_that_are_not_utf_8_run_as_files_and_are_refused_as_classes(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 2, "owl": 2})
    odd = os.fsencode(tmp_path / "owl") + b"/caf\xe9.png"
    Path(os.fsdecode(odd)).write_bytes((tmp_path / "owl" / "000.png").read_bytes())
    assert parts_of(tmp_path) == (5, None)
    os.rename(tmp_path / "owl", os.fsencode(tmp_path) + b"/caf\xe9")  # noqa: PTH104  # bytes
    assert r"caf\xe9 is not UTF-8: rename it" in refusal(tmp_path)


def test_one_label_in_two_unicode_forms_is_one_label(tmp_path: Path) -> None:
    composed, taken_apart = "caf\u00e9", "cafe\u0301"
    write_folder(tmp_path / "train", {composed: 2, "owl": 2})
    write_folder(tmp_path / "val", {taken_apart: 1, "owl": 1})
    assert image_folder(tmp_path, reading=Reading.square(8)).labels == (composed, "owl")
    write_folder(tmp_path / "train", {taken_apart: 2})
    assert "has two folders that read" in refusal(tmp_path)
