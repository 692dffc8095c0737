from pathlib import Path

import pytest
import torch

from dse.data.folder import image_folder
from dse.errors import DataError
from support.images import picture, write_folder


def test_each_subfolder_is_a_label(tmp_path: Path) -> None:
    write_folder(tmp_path, {"owl": 2, "cat": 3})
    source = image_folder(tmp_path, image_size=8)
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
    source = image_folder(tmp_path, image_size=8)
    assert source.labels == ("cat", "owl")
    assert source.train.targets.tolist() == [0, 0, 1, 1]


def test_a_link_that_leads_back_up_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 2, "owl": 2})
    (tmp_path / "elsewhere").symlink_to(tmp_path / "cat")
    (tmp_path / "owl" / "more").symlink_to(tmp_path / "cat")
    assert image_folder(tmp_path, image_size=8).train.targets.tolist() == [0, 0, 1, 1, *[2] * 4]
    for target in ("..", "."):
        link = tmp_path / "owl" / "up"
        link.symlink_to(target)
        assert f"owl/up is a link back to {(link.parent / target).resolve()}" in refusal(tmp_path)
        link.unlink()


@pytest.mark.parametrize("name", ["val", "validation", "valid", "test"])
def test_a_validation_folder_beside_train_is_used(name: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 2, "owl": 2})
    write_folder(tmp_path / name, {"cat": 1, "owl": 1})
    source = image_folder(tmp_path, image_size=8)
    assert source.labels == ("cat", "owl")
    assert source.validation is not None
    assert source.validation.targets.tolist() == [0, 1]


def test_val_goes_before_test_and_train_may_stand_alone(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 2, "owl": 2})
    assert image_folder(tmp_path, image_size=8).validation is None
    write_folder(tmp_path / "test", {"cat": 9, "owl": 9})
    write_folder(tmp_path / "val", {"cat": 1, "owl": 1})
    source = image_folder(tmp_path, image_size=8)
    assert source.validation is not None
    assert len(source.validation.images) == 2


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        image_folder(root, image_size=8)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_folders_and_files(tmp_path: Path) -> None:
    assert f"{tmp_path}/none does not exist: name a folder" in refusal(tmp_path / "none")
    (tmp_path / "file").touch()
    assert "file is a file" in refusal(tmp_path / "file")


def test_fewer_than_two_labels(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "image.png")
    assert "has no subfolders: put the images of each label into a subfolder" in refusal(tmp_path)
    write_folder(tmp_path, {"cat": 2})
    assert "has only the subfolder 'cat'" in refusal(tmp_path)


def test_labels_without_images(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 2, "owl": 0})
    assert f"{tmp_path}/owl holds no images: each label needs images (.jpg" in refusal(tmp_path)


def test_labels_must_be_the_same_in_both_parts(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 2, "owl": 2})
    write_folder(tmp_path / "val", {"cat": 2})
    assert "val/owl does not exist" in refusal(tmp_path)
    write_folder(tmp_path / "val", {"owl": 2, "yak": 2})
    assert "has the label 'yak', which" in refusal(tmp_path)
