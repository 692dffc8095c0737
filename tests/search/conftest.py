import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.postgres import Postgres, running_server, why_missing
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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of the tests' own; skipped where there is none."""
    if (missing := why_missing()) is not None:
        pytest.skip(missing)
    with running_server() as server:
        yield server
