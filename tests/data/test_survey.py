import os
from pathlib import Path

import pytest

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


def test_all_broken_files_are_named_and_the_others_remembered(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 6})
    paths = sorted((tmp_path / "cat").iterdir())
    for path in paths[1:3]:
        path.write_text("<html>404 not found</html>", encoding="utf-8")
    told: list[tuple[int, int]] = []
    with pytest.raises(UnreadableImageError, match=r"001\.png: .* nor can 1 more") as caught:
        survey(
            paths,
            everything=True,
            known=tmp_path / "known.npy",
            tell=lambda done, total: told.append((done, total)),
        )
    assert caught.value.paths == tuple(paths[1:3])
    assert told == [(6, 6)]
    sound = [path for path in paths if path not in caught.value.paths]
    assert survey(sound, everything=True, known=tmp_path / "known.npy").read == 0


def test_progress_is_told_of_what_takes_long_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    lines: list[str] = []
    tell = reading(lines.append)
    for now in (1.0, 4.0, 6.0, 7.0, 12.0):
        tell(int(now), 12)
    assert lines == ["read 6 of 12 images, to see that all can be read"]
