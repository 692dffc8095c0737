"""The folder of files that can be made again."""

from pathlib import Path

import pytest

from dse.caches import cache_folder
from dse.data.survey import memory_file
from dse.data.torchvision_sets import default_root


def test_it_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSE_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"
    monkeypatch.delenv("DSE_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "dse"


def test_data_sets_lie_in_it_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DSE_CACHE", "~/elsewhere")
    assert default_root() == Path.home() / "elsewhere" / "data"
    assert memory_file(tmp_path).parent == Path.home() / "elsewhere"
