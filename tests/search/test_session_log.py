"""What a run's storage tells of its sessions."""

from pathlib import Path

import optuna
import pytest
from sqlalchemy.exc import OperationalError

from dse.errors import RunError
from dse.search.session_log import SESSION, SessionLog, read_sessions
from dse.search.storage import open_storage
from dse.search.storage_urls import sqlite_url
from support.runs import make_study


@pytest.fixture
def archive(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(storage=open_storage(sqlite_url(tmp_path / "study.db")))


def fail(archive: optuna.Study, error: BaseException) -> None:
    with SessionLog() as log:
        log.begin(archive, make_study())
        raise error


def test_a_session_has_start_end_machine_and_threads(archive: optuna.Study) -> None:
    study = make_study()
    with SessionLog() as log:
        log.begin(archive, study)
        (going,) = read_sessions(archive.user_attrs)
        assert going.ended is None
        assert going.wall_seconds is None
    (ended,) = read_sessions(archive.user_attrs)
    assert ended.ended is not None
    assert ended.ended >= ended.started == going.started
    assert ended.wall_seconds is not None
    assert ended.cores >= 1
    assert ended.threads >= 1
    assert ended.processor


def test_sessions_at_once_keep_their_own_ends(archive: optuna.Study) -> None:
    killed, other = SessionLog(), SessionLog()
    killed.begin(archive, make_study())
    with other:
        other.begin(archive, make_study())
    found = read_sessions(archive.user_attrs)
    assert sorted(one.ended is None for one in found) == [False, True]


def test_an_interrupted_session_has_an_end(archive: optuna.Study) -> None:
    with pytest.raises(KeyboardInterrupt):
        fail(archive, KeyboardInterrupt())
    assert [one.ended is None for one in read_sessions(archive.user_attrs)] == [False]


def test_nothing_more_is_written_to_a_storage_that_failed(archive: optuna.Study) -> None:
    with pytest.raises(OperationalError):
        fail(archive, OperationalError("select", None, Exception("gone")))
    assert [one.ended for one in read_sessions(archive.user_attrs)] == [None]


def test_a_session_that_never_began_writes_nothing(archive: optuna.Study) -> None:
    with SessionLog():
        pass
    assert read_sessions(archive.user_attrs) == ()


def test_a_damaged_record_is_named(archive: optuna.Study) -> None:
    archive.set_user_attr(f"{SESSION}x", {"started": 1})
    with pytest.raises(RunError, match="session:x: "):
        read_sessions(archive.user_attrs)
