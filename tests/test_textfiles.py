import os
import socket
from pathlib import Path

import pytest

from dse.textfiles import MOST_BYTES, exists, read_text, too_deep


def test_a_regular_file_is_read_also_through_a_link(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text("größe = 1", encoding="utf-8")
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    assert read_text(file) == read_text(link) == "größe = 1"


def odd_files(folder: Path) -> dict[str, Path]:
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("/dev/zero")
    (folder / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
    return {
        "it is a pipe": folder / "pipe",
        "it is a device": folder / "link",
        "it is a folder": folder / "folder",
    }


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    for reason, path in odd_files(tmp_path).items():
        with pytest.raises(OSError, match=reason):
            read_text(path)
    with pytest.raises(OSError, match="No such device"):  # a socket can't be opened at all
        read_text(tmp_path / "socket")
    with pytest.raises(OSError, match="no file can have this name"):
        read_text(Path("a\0b"))
    with pytest.raises(OSError, match="too long"):
        read_text(Path("a" * 5000))


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(2**40)  # a hole: takes no room
    with pytest.raises(OSError, match=f"larger than {MOST_BYTES // 2**20} MiB"):
        read_text(huge)
    (tmp_path / "small").write_bytes(b"abc")
    assert read_text(tmp_path / "small", most_bytes=3) == "abc"
    with pytest.raises(OSError, match="larger"):
        read_text(tmp_path / "small", most_bytes=2)


def test_any_name_can_be_requested(tmp_path: Path) -> None:
    assert exists(tmp_path)
    assert not exists("a" * 5000)
    assert not exists("a\0b")


def test_depth_is_measured_without_recursion() -> None:
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    assert too_deep(deep, most=16)
    assert not too_deep({"a": {"b": [1]}}, most=3)
    assert too_deep({"a": {"b": [1]}}, most=2)
    assert not too_deep(1, most=0)
