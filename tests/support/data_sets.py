"""Data sets by name, and the one line with which a wrong one is refused."""

from pathlib import Path

import pytest

from dse.config import DataConfig
from dse.data import check_data, load_data
from dse.errors import DataError


def config(name: str, root: Path | None, **changed: object) -> DataConfig:
    return DataConfig.model_validate({"name": name, "root": root, "image_size": 8} | changed)


def refusal(data: DataConfig, *, when: str = "load") -> str:
    with pytest.raises(DataError) as caught:
        check_data(data) if when == "check" else load_data(data, seed=0)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)
