"""Whatever a file holds, reading it gives an image or names the file."""

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dse.data.decode import shaped
from dse.data.images import FileImages
from dse.data.reading import Reading
from dse.errors import DataError
from support.images import picture

FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "PPM")


def encoded(kind: str, mode: str) -> bytes:
    held = io.BytesIO()
    picture(1, width=20, height=14).convert(mode).save(held, format=kind)
    return held.getvalue()


SOUND = [encoded(kind, "RGB") for kind in FORMATS] + [encoded("PNG", "P"), encoded("TIFF", "F")]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(st.sampled_from(SOUND)))
    for _ in range(draw(st.integers(0, 4))):  # headers, which lie in front, more often
        place = draw(st.integers(0, 40) | st.integers(0, len(content) - 1)) % len(content)
        content[place] ^= draw(st.integers(1, 255))
    length = draw(st.just(len(content)) | st.integers(0, len(content)))
    return bytes(content[:length]) + draw(st.binary(max_size=8))


def read_or_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            read = FileImages([path], Reading.square(8)).fetch(torch.tensor([0]))
            refusal = ""
        except DataError as error:
            refusal, read = str(error), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    assert (read.shape, read.dtype) == ((1, 3, 8, 8), torch.uint8)
    assert not refusal or path.name in refusal
    assert "\n" not in refusal
    assert not warned


@given(content=damaged())
@settings(max_examples=60)
def test_a_damaged_file_is_an_image_or_refused(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    read_or_refused(content, tmp_path_factory.getbasetemp() / "damaged.png")


@pytest.mark.slow
@given(content=damaged() | st.binary(max_size=200))
@settings(max_examples=5000)
def test_many_damaged_files_are_images_or_refused(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    read_or_refused(content, tmp_path_factory.getbasetemp() / "many.png")


def exif(orientation: int, tag: int, kind: int, value: bytes, extra: bytes = b"") -> bytes:
    entries = [(0x112, 3, 1, struct.pack("<HH", orientation, 0)), (tag, kind, 1, value)]
    body = b"".join(struct.pack("<HHL", each, k, c) + v for each, k, c, v in entries)
    return b"Exif\0\0II*\0" + struct.pack("<LH", 8, 2) + body + struct.pack("<L", 0) + extra


# A resolution of -1/0 and of 1/0, a value beyond the end, and an orientation that is none.
ODD = {
    "negative": (6, exif(6, 0x11A, 10, struct.pack("<L", 38), struct.pack("<ll", -1, 0))),
    "by nothing": (6, exif(6, 0x11A, 5, struct.pack("<L", 38), struct.pack("<LL", 1, 0))),
    "cut": (6, exif(6, 0x11A, 10, struct.pack("<L", 3000))),
    "ninth": (1, exif(9, 0x11A, 3, struct.pack("<HH", 1, 0))),
    "no exif": (1, b"Exif\0\0nothing"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_exif_of_a_sound_photograph_is_no_hindrance(name: str, tmp_path: Path) -> None:
    orientation, data = ODD[name]
    image = picture(4, width=16, height=16)
    image.save(tmp_path / "photo.jpg", exif=data, quality=95)
    read = FileImages([tmp_path / "photo.jpg"], Reading.square(8)).fetch(torch.tensor([0]))[0]
    expected = shaped(
        image.transpose(Image.Transpose.ROTATE_270) if orientation == 6 else image,
        Reading.square(8),
    )
    assert np.abs(read.numpy().astype(int) - expected).mean() < 12
