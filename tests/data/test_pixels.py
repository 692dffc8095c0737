"""Values of any depth keep their range, by one scale for a data set."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from dse.data.datasets import dataset_source
from dse.data.images import FileImages
from dse.data.reading import Reading
from dse.data.survey import survey
from dse.errors import DataError

RAMP = np.tile(np.linspace(0, 1, 64), (64, 1))
GREYS = {
    "8 of 16 bits.png": ((RAMP * 255).astype(np.uint16), "8 bits, from 0 to 255"),
    "12 of 16 bits.png": ((RAMP * 4095).astype(np.uint16), "12 bits, from 0 to 4095"),
    "16 bits.png": ((RAMP * 65535).astype(np.uint16), "16 bits, from 0 to 65535"),
    "8 of 32 bits.tif": ((RAMP * 255).astype(np.int32), "8 bits, from 0 to 255"),
    "10 of 32 bits.tif": ((RAMP * 1023).astype(np.int32), "10 bits, from 0 to 1023"),
    "to 1.tif": (RAMP.astype(np.float32), "floats from 0 to 1"),
    "to 255.tif": ((RAMP * 255).astype(np.float32), "floats from 0 to 255"),
    "to 65535.tif": ((RAMP * 65535).astype(np.float32), "floats from 0 to 65535"),
}


class Arrays(Dataset[Any]):
    """Arrays with alternating labels."""

    def __init__(self, *arrays: Any) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, position: int) -> Any:
        return self.arrays[position], position % 2


def from_items(*arrays: Any) -> tuple[torch.Tensor, str]:
    source = dataset_source(Arrays(*arrays), None, name="mine", reading=Reading.square(64))
    return source.train.images.fetch(torch.arange(len(arrays))), source.pixel_values


def from_files(*paths: Path) -> torch.Tensor:
    scale = survey(paths, everything=False).scale
    return FileImages(paths, Reading.square(64), scale).fetch(torch.arange(len(paths)))


@pytest.mark.parametrize("name", GREYS)
def test_greys_of_every_depth_keep_their_range(name: str, tmp_path: Path) -> None:
    values, text = GREYS[name]
    Image.fromarray(values).save(tmp_path / name)
    expected = np.rint(RAMP * 255)
    items, found = from_items(
        values, values, torch.from_numpy(values), values[None], values[..., None]
    )
    assert text in found
    for read in (from_files(tmp_path / name)[0], *items):
        assert np.abs(read.numpy().astype(float) - expected).max() <= 1
    big_endian = values.astype(values.dtype.newbyteorder(">"))
    assert np.array_equal(from_items(big_endian, big_endian)[0][0], items[0])


def test_one_scale_holds_for_the_whole_data_set(tmp_path: Path) -> None:
    for number, top in enumerate((4095, 2047)):
        Image.fromarray((RAMP * top).astype(np.uint16)).save(tmp_path / f"{number}.png")
    bright, dim = from_files(tmp_path / "0.png", tmp_path / "1.png")
    assert (int(bright.max()), int(dim.max())) == (255, 127)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.full((8, 8), np.nan, np.float32), "values that are not finite"),
        (np.full((8, 8), np.inf, np.float32), "values that are not finite"),
        (np.full((8, 8), -1.5, np.float32), "outside 0 to 1: leave normalising to data.mean"),
        (np.full((8, 8), 1.5, np.float32), "outside 0 to 1 and on no other usual scale"),
        (np.full((8, 8), 1e6, np.float32), "up to 1e\\+06, outside 0 to 1"),
        (np.full((8, 8), 70000, np.int32), "bring all images to 16 bits"),
        (np.full((8, 8), -1000, np.int32), "shift them, so that black is 0"),
    ],
)
def test_values_on_no_known_scale_are_refused_by_name(
    values: np.ndarray[Any, Any], expected: str, tmp_path: Path
) -> None:
    Image.fromarray(values).save(tmp_path / "odd.tif")
    with pytest.raises(DataError, match=rf"odd\.tif.*{expected}"):
        from_files(tmp_path / "odd.tif")
    with pytest.raises(DataError, match=rf"image 0 .*{expected}"):
        from_items(values, values)


def test_floats_on_two_scales_are_refused() -> None:
    with pytest.raises(DataError, match=r"image 1 has values from 0 to 1, and .* up to 255"):
        from_items((RAMP * 255).astype(np.float32), RAMP.astype(np.float32))


def test_images_that_come_out_black_are_named() -> None:
    bright, dark = (RAMP * 65535).astype(np.uint16), (RAMP * 255).astype(np.uint16)
    source = dataset_source(Arrays(bright, dark), None, name="mine", reading=Reading.square(64))
    (note,) = source.notes
    assert note.startswith("1 of 2 images, such as data 'mine': image 1, reach less than 1/256 of ")


@pytest.mark.parametrize(
    ("usual", "odd", "expected"),
    [
        (RAMP.astype(np.float32), (RAMP * 255).astype(np.float32), "up to 255, and the .* up to 1"),
        (RAMP.astype(np.float32), np.full((64, 64), np.nan, np.float32), "not finite"),
        ((RAMP * 255).astype(np.uint8), (RAMP * 4095).astype(np.uint16), "values of type uint16"),
    ],
)
def test_an_odd_image_that_the_sample_missed_is_refused_when_it_is_read(
    usual: np.ndarray[Any, Any], odd: np.ndarray[Any, Any], expected: str
) -> None:
    arrays = [usual] * 100
    arrays[50] = odd
    images = dataset_source(
        Arrays(*arrays), None, name="mine", reading=Reading.square(8)
    ).train.images
    assert images.fetch(torch.arange(50)).max() > 230  # white, averaged by resizing
    with pytest.raises(DataError, match=rf"image 50 can't be used: .*{expected}"):
        images.fetch(torch.arange(50, 52))


def test_resampled_floats_may_overshoot_a_little() -> None:
    values = np.full((64, 64), 1.004, np.float32)
    values[0] = -0.003
    assert from_items(values, values)[0].unique().tolist() == [0, 255]


def test_binary_images_are_black_and_white() -> None:
    assert from_items(RAMP > 0.5, RAMP > 0.5)[0].unique().tolist() == [0, 255]
    whole = (RAMP > 0.5).astype(np.int64)
    assert from_items(whole, whole)[0].unique().tolist() == [0, 255]


def test_16_bit_colours_are_read_by_their_high_byte_or_refused(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    for top, name in ((65535, "full.png"), (4095, "dim.png")):
        write_deep_png(tmp_path / name, (RAMP * top).astype(">u2"))
    assert len(from_files(tmp_path / "full.png").unique()) == 64
    with pytest.raises(DataError, match=r"dim\.png has 16-bit colours, of which 12 bits are used"):
        from_files(tmp_path / "dim.png")


def write_deep_png(path: Path, grey: np.ndarray[Any, Any]) -> None:
    """Write a PNG of 16-bit colours, which Pillow reads but doesn't write."""
    import struct  # noqa: PLC0415
    import zlib  # noqa: PLC0415

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    rows = np.repeat(grey[..., None], 3, axis=2).reshape(len(grey), -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )
