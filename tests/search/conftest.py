import shutil
from pathlib import Path

import pytest

from support.searches import search


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed; not to be written to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    search(folder)
    return folder


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Path:
    """A copy of that run, to go on with."""
    shutil.copytree(whole.parent, tmp_path / "finished")
    return tmp_path / "finished" / "run"
