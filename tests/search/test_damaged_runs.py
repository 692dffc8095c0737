"""Run folders whose files or storage were damaged: one line each, never another exception."""

import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dse.errors import DseError
from dse.search.load import load_run

FILES = ("run.json", "study.toml", "study.db")
CELLS = (
    ("trial_user_attributes", "value_json"),
    ("study_user_attributes", "value_json"),
    ("trial_values", "value"),
    ("trial_params", "param_value"),
    ("trial_params", "distribution_json"),
    ("trials", "state"),
    ("trials", "number"),
    ("trials", "datetime_start"),
    ("study_directions", "direction"),
)
VALUES = ("null", "[]", "{}", '"x"', "1e999", "-1", "NaN", "[1,[2]]", b"\xff\xfe", "9" * 40)

cells = st.tuples(st.sampled_from(CELLS), st.integers(0, 10**6), st.sampled_from(VALUES))
cuts = st.tuples(
    st.sampled_from(FILES), st.integers(0, 10**6), st.integers(0, 200), st.binary(max_size=40)
)


@contextmanager
def copied(run: Path) -> Iterator[Path]:
    with TemporaryDirectory() as name:
        folder = Path(name) / "run"
        shutil.copytree(run, folder)
        yield folder


def read(folder: Path) -> None:
    """Read a run; a hang of 20 s fails."""
    message = ""
    signal.alarm(20)
    try:
        load_run(folder, trust=True)
    except DseError as error:
        message = str(error)
    finally:
        signal.alarm(0)
    assert "\n" not in message


def damage_cell(run: Path, damage: tuple[tuple[str, str], int, str | bytes]) -> None:
    (table, column), place, value = damage
    with copied(run) as folder:
        with closing(sqlite3.connect(folder / "study.db")) as database:
            rows = [row for (row,) in database.execute(f"SELECT rowid FROM {table}")]  # noqa: S608
            where = rows[place % len(rows)]
            database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, where))  # noqa: S608
            database.commit()
        read(folder)


def damage_file(run: Path, damage: tuple[str, int, int, bytes]) -> None:
    name, place, removed, added = damage
    with copied(run) as folder:
        content = (folder / name).read_bytes()
        start = place % len(content)
        (folder / name).write_bytes(content[:start] + added + content[start + removed :])
        read(folder)


few = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
many = settings(few, max_examples=2000)


@few
@given(damage=cells)
def test_a_damaged_value_in_the_storage_is_one_line(
    whole: Path, damage: tuple[tuple[str, str], int, str | bytes]
) -> None:
    damage_cell(whole, damage)


@few
@given(damage=cuts)
def test_a_damaged_file_is_one_line(whole: Path, damage: tuple[str, int, int, bytes]) -> None:
    damage_file(whole, damage)


@pytest.mark.slow
@many
@given(damage=cells)
def test_thousands_of_damaged_values(
    whole: Path, damage: tuple[tuple[str, str], int, str | bytes]
) -> None:
    damage_cell(whole, damage)


@pytest.mark.slow
@many
@given(damage=cuts)
def test_thousands_of_damaged_files(whole: Path, damage: tuple[str, int, int, bytes]) -> None:
    damage_file(whole, damage)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (("trials", "state"), "null"),
        (("trial_values", "value"), "x"),
        (("study_user_attributes", "value_json"), "-1"),
        (("trial_params", "distribution_json"), "{"),
        (("trials", "number"), '"x"'),
    ],
)
def test_what_once_was_an_unexpected_error(whole: Path, cell: tuple[str, str], value: str) -> None:
    for place in range(0, 40, 8):
        damage_cell(whole, (cell, place, value))
