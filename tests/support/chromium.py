"""A real Chromium, for tests of pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """The path of an installed Chromium or Chrome."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def why_missing() -> str | None:
    """Why no page can be opened here; None if one can."""
    return None if find_chromium() else "Chromium is not installed (apt-get install chromium)"


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Start a browser without a window, and close it afterwards."""
    # As root, Chromium starts only without its sandbox.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=options)
        try:
            yield browser
        finally:
            browser.close()
