"""Many processes that open one fresh storage at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.postgres import Postgres

TESTS = Path(__file__).parents[1]


def open_at_once(count: int, *urls: str) -> list[str]:
    ended = subprocess.run(
        [sys.executable, TESTS / "support" / "openers.py", str(count), *urls],
        env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout.splitlines()


def test_many_processes_create_one_storage_at_once(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/study.db", f"journal:///{tmp_path}/study.log"]
    assert open_at_once(4, *urls) == [*["done"] * 4, "True"] * 2


@pytest.mark.faults
def test_eight_processes_create_six_databases_each_at_once(
    tmp_path: Path, postgres: Postgres
) -> None:
    urls = [postgres.create(f"fresh{number}") for number in range(6)]
    urls += [f"sqlite:///{tmp_path}/{number}.db" for number in range(6)]
    urls += [f"journal:///{tmp_path}/{number}.log" for number in range(6)]
    assert open_at_once(8, *urls) == [*["done"] * 8, "True"] * 18
