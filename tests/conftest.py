import io
import json
import os
from collections.abc import Iterator
from contextlib import redirect_stdout

import pytest
import torch
from hypothesis import settings

from dse.caches import CACHE_VARIABLE
from dse.cli import main
from dse.deploy.devices import CONFIG_VARIABLE
from dse.trust.seal import STATE_VARIABLE
from support.faults import FaultTable
from support.tiny import TinyRun, write_tiny_study

# Examples take as long as the machine lets them: a deadline would fail tests on a busy one.
settings.register_profile("dse", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dse"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """So small networks gain nothing by more threads, and lose much on a busy machine.

    The tests run in as many processes as there are cores, and those start others.
    """
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def own_cache_and_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests, and the processes they start, out of the user's own folders."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        patched.setenv(STATE_VARIABLE, str(tmp_path_factory.mktemp("state")))
        patched.setenv(CONFIG_VARIABLE, str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    place = tmp_path_factory.mktemp("tiny")
    study = write_tiny_study(place)
    folder = place / "run"
    printed = io.StringIO()
    with redirect_stdout(printed):
        status = main(["run", str(study), "--out", str(folder), "--json"])
    assert status == 0
    return TinyRun(study, folder, json.loads(printed.getvalue()))


_FAULTS = FaultTable()


@pytest.fixture
def faults() -> FaultTable:
    return _FAULTS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _FAULTS.rows:
        terminalreporter.section("faults")
        for line in _FAULTS.lines():
            terminalreporter.write_line(line)
