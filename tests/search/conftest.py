import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.postgres import Postgres, running_server, why_missing
from support.searches import search, tiny_study, trained
from support.team import TRIALS, Team


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


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """The trainings of a worker of a `Team` that works alone and that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    search(folder, tiny_study(trials=TRIALS, finalists=1))
    return frozenset(trained(folder))


@pytest.fixture
def team(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Team]:
    """Workers that meet in PostgreSQL if the test uses it, otherwise in an SQLite file."""
    url = f"sqlite:///{tmp_path}/shared.db"
    if "postgres" in request.fixturenames:  # by its name or by usefixtures
        url = request.getfixturevalue("postgres").create(f"d{time.time_ns()}")
    team = Team(tmp_path, url)
    yield team
    team.end()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB; skipped where the tests may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if (
        os.geteuid() != 0
        or subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode
    ):
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)
