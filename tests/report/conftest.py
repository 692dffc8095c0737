"""A small real network, a made-up run over it, and a real browser for its page."""

from collections.abc import Iterator

import pytest
import torch
from playwright.sync_api import Browser

from dse.memory.model import MemoryModel
from dse.results.records import RunRecords
from support.chromium import running_chromium, why_missing
from support.networks import Residual
from support.pages import run_over


@pytest.fixture(scope="session")
def model() -> MemoryModel:
    torch.manual_seed(0)
    return MemoryModel.compile(Residual(), torch.zeros(2, 3, 16, 16))


@pytest.fixture(scope="session")
def records(model: MemoryModel) -> RunRecords:
    return run_over(model)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    if (missing := why_missing()) is not None:
        pytest.skip(missing)
    with running_chromium() as browser:
        yield browser
