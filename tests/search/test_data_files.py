from pathlib import Path

import pytest

from dse.errors import RunError, UnreadableImageError
from dse.search.data_files import taken_out, unreadable_noted, write_files

FILES = {"train/cat/1.png": 10, "train/cat/2.png": 10, "validation/owl/in/1.png": 12}


def without(*keys: str) -> dict[str, int]:
    return {key: size for key, size in FILES.items() if key not in keys}


def broken(folder: Path, *paths: str) -> None:
    for path in paths:
        with pytest.raises(UnreadableImageError), unreadable_noted(folder):
            raise UnreadableImageError(Path(path), "broken")


def test_only_what_could_not_be_read_may_be_taken_out(tmp_path: Path) -> None:
    write_files(tmp_path, FILES)
    assert taken_out(tmp_path, FILES) == ()
    with pytest.raises(RunError, match=r"train/cat/2\.png is gone"):
        taken_out(tmp_path, without("train/cat/2.png"))
    broken(tmp_path, "/data/train/cat/2.png", "/data/val/owl/in/1.png")
    gone = ("train/cat/2.png", "validation/owl/in/1.png")
    assert taken_out(tmp_path, without(*gone)) == gone
    with pytest.raises(RunError, match=r"train/cat/1\.png is gone"):
        taken_out(tmp_path, without("train/cat/1.png", *gone))
    with pytest.raises(RunError, match=r"train/cat/3\.png is new"):
        taken_out(tmp_path, {**without(*gone), "train/cat/3.png": 1})
    with pytest.raises(RunError, match=r"train/cat/1\.png has another size"):
        taken_out(tmp_path, {**without(*gone), "train/cat/1.png": 11})


def test_before_a_run_has_begun_nothing_is_noted(tmp_path: Path) -> None:
    broken(tmp_path, "/data/cat/1.png")
    assert list(tmp_path.iterdir()) == []
    assert taken_out(tmp_path, FILES) == ()
