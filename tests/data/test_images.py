from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from dse.data.decode import shaped
from dse.data.images import FileImages
from dse.data.items import DatasetImages
from dse.data.pixels import Scale
from dse.data.reading import Reading
from dse.errors import DataError
from support.images import picture

ALL = torch.arange(1)


@pytest.mark.parametrize(("width", "height"), [(8, 8), (20, 8), (8, 20), (6, 3), (96, 48), (1, 7)])
def test_the_short_side_is_scaled_and_the_centre_cut_out(width: int, height: int) -> None:
    image = picture(1, width=width, height=height)
    result = shaped(image, Reading.square(8))
    assert result.shape == (3, 8, 8)
    assert result.dtype == np.uint8
    wide, high = width * 8 // min(width, height), height * 8 // min(width, height)
    left, top = (wide - 8) // 2, (high - 8) // 2
    whole = image.resize((wide, high), Image.Resampling.BILINEAR)
    expected = np.asarray(whole.crop((left, top, left + 8, top + 8)))
    assert np.abs(result.transpose(1, 2, 0).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(5, 3), (37, 100)])
def test_any_proportions_are_taken(width: int, height: int) -> None:
    assert shaped(picture(1, width=width, height=height), Reading.square(8)).shape == (3, 8, 8)


def test_images_of_the_right_size_are_left_as_they_are() -> None:
    image = picture(2, width=8, height=8)
    assert np.array_equal(shaped(image, Reading.square(8)), np.asarray(image).transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "F"])
def test_every_mode_becomes_three_colours(mode: str) -> None:
    image = picture(3).convert("RGB").convert(mode)
    assert shaped(image, Reading.square(8), scale=Scale(floats=255.0)).shape == (3, 8, 8)


def test_grey_of_16_bits_is_scaled_and_not_clipped() -> None:
    grey = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    result = shaped(Image.fromarray(grey), Reading.square(8), scale=Scale(integers=65535))
    assert np.array_equal(result[0], np.rint(grey / 257))
    assert np.array_equal(result[0], result[2])


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    image = picture(4, width=8, height=8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    read = FileImages([tmp_path / "turned.png"], Reading.square(8)).fetch(ALL)[0]
    assert np.array_equal(read, shaped(image.rotate(-90), Reading.square(8)))


def test_files_are_read_in_the_given_order(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        picture(number).save(path)
    images = FileImages(paths, Reading.square(8))
    assert len(images) == 5
    read = images.fetch(torch.tensor([3, 0, 3]))
    assert np.array_equal(read[1], shaped(picture(0), Reading.square(8)))
    assert torch.equal(read[0], read[2])
    assert images.fetch(torch.empty(0, dtype=torch.int64)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("kind", ["text", "empty", "cut png", "cut jpg", "absent"])
def test_a_broken_file_is_named(kind: str, tmp_path: Path) -> None:
    suffix = "jpg" if "jpg" in kind else "png"
    path = tmp_path / f"broken.{suffix}"
    picture(5, width=64, height=64).save(path)
    if kind == "text":
        path.write_text("no image\n", encoding="utf-8")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "absent":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"broken\.{suffix}: can't be read as an image") as caught:
        FileImages([path], Reading.square(8)).fetch(ALL)
    assert "\n" not in str(caught.value)


class Items(Dataset[Any]):
    """A data set of given items."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> Any:
        return self.items[position]


def fetch(image: object, size: int = 8) -> torch.Tensor:
    return DatasetImages(Items((image, 0)), "mine", Reading.square(size)).fetch(ALL)[0]


def test_data_sets_may_give_images_in_many_forms() -> None:
    image = picture(6)
    bytes_ = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    expected = fetch(image)
    assert torch.equal(fetch(bytes_), expected)
    assert torch.equal(fetch(bytes_.numpy()), expected)
    assert torch.equal(fetch(bytes_ / 255), expected)
    assert torch.equal(fetch(bytes_[:1]), fetch(bytes_[:1].expand(3, -1, -1)))
    assert torch.equal(fetch(bytes_[0]), fetch(bytes_[:1]))
    assert fetch(bytes_[:, :8, :8]).equal(bytes_[:, :8, :8])


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (torch.zeros(4, 8, 8), r"is a Tensor of shape \(4, 8, 8\)"),
        (torch.zeros(8), r"of shape \(8,\): give Pillow images"),
        ("path.png", "is a str: give Pillow images"),
        (torch.zeros(0, 8), r"of shape \(0, 8\): give Pillow images"),
        (np.array([["a", "b"]]), "of type <U1|can't be used"),
    ],
)
def test_images_of_other_forms_are_refused(image: object, expected: str) -> None:
    with pytest.raises(DataError, match=rf"data 'mine': image 0 .*({expected})"):
        fetch(image)


@pytest.mark.parametrize("item", [3, (1, 2, 3), None])
def test_items_that_are_no_pairs_are_refused(item: object) -> None:
    with pytest.raises(DataError, match=r"image 0 can't be read as \(image, label\)"):
        DatasetImages(Items(item), "mine", Reading.square(8)).fetch(ALL)


def test_without_a_scale_it_is_found_from_the_files(tmp_path: Path) -> None:
    grey = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)  # 12 bits in 16
    Image.fromarray(grey).save(tmp_path / "grey.png")
    read = FileImages([tmp_path / "grey.png"], Reading.square(8)).fetch(ALL)[0, 0]
    assert np.array_equal(read, np.rint(grey / 4095 * 255))
