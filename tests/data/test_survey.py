import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dse.data.survey import memory_file, reading, survey
from dse.errors import UnreadableImageError
from support.images import write_folder


def test_each_file_is_read_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSE_CACHE", str(tmp_path / "cache"))
    write_folder(tmp_path, {"cat": 5})
    paths, known = sorted((tmp_path / "cat").iterdir()), memory_file(tmp_path)
    assert survey(paths, everything=True, known=known).read == 5
    assert survey(paths, everything=True, known=known).read == 0
    os.utime(paths[2], (0, 0))
    assert survey(paths, everything=True, known=known).read == 1
    known.write_bytes(b"torn")
    assert survey(paths, everything=True, known=known).read == 5


def test_checking_some_files_keeps_what_is_known_of_the_others(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 6})
    paths, known = sorted((tmp_path / "cat").iterdir()), tmp_path / "known.npy"
    assert survey(paths[:4], everything=True, known=known).read == 4
    assert survey(paths[4:], everything=True, known=known).read == 2
    assert survey(paths, everything=True, known=known).read == 0


def test_results_of_earlier_checks_are_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dse.data.survey.KEPT_RESULTS", 2)
    write_folder(tmp_path, {"cat": 6})
    paths, known = sorted((tmp_path / "cat").iterdir()), tmp_path / "known.npy"
    survey(paths[:4], everything=True, known=known)
    assert survey(paths[:4], everything=True, known=known).read == 0
    survey(paths[4:], everything=True, known=known)
    assert survey(paths[2:], everything=True, known=known).read == 0
    assert survey(paths[:2], everything=True, known=known).read == 2


def test_a_quick_check_finds_the_same_scale(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 2})
    grey = np.linspace(0, 4095, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "cat" / "deep.png")
    paths = sorted((tmp_path / "cat").iterdir())
    quick, whole = (survey(paths, everything=one) for one in (False, True))
    assert quick.scale == whole.scale
    assert quick.scale.text.startswith("bytes, from 0 to 255; grey values of 12 bits")
    assert (quick.read, whole.read) == (1, 3)


def test_all_broken_files_are_named_and_the_others_remembered(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 6})
    paths = sorted((tmp_path / "cat").iterdir())
    for path in paths[1:3]:
        path.write_text("<html>404 not found</html>", encoding="utf-8")
    reports: list[tuple[int, int]] = []
    with pytest.raises(UnreadableImageError, match=r"001\.png: .* nor can 1 more") as caught:
        survey(
            paths,
            everything=True,
            known=tmp_path / "known.npy",
            on_count=lambda done, total: reports.append((done, total)),
        )
    assert caught.value.paths == tuple(paths[1:3])
    assert reports == [(6, 6)]
    sound = [path for path in paths if path not in caught.value.paths]
    assert survey(sound, everything=True, known=tmp_path / "known.npy").read == 0


def test_progress_is_reported_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    lines: list[str] = []
    on_count = reading(lines.append)
    for now in (1.0, 4.0, 6.0, 7.0, 12.0):
        on_count(int(now), 12)
    assert lines == ["checking that all images can be read: 6 of 12"]
