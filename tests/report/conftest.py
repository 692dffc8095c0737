"""A real browser for the report's page."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from support.chromium import running_chromium, why_missing


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    if (missing := why_missing()) is not None:
        pytest.skip(missing)
    with running_chromium() as browser:
        yield browser
