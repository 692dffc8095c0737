import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from dse.errors import RunError
from dse.search.storage import open_storage
from dse.search.storage_urls import absolute_url, masked, sqlite_url, without_password

SECRET = "s3cret"  # noqa: S105 -- made up


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{SECRET}@host:5432/base",
        f"mysql+pymysql://user:{SECRET}@host/base?charset=utf8",
        f"postgresql://host/base?user=me&password={SECRET}&sslmode=require",
    ],
)
def test_a_password_is_masked_for_the_eye_and_left_out_of_files(url: str) -> None:
    for shown in (masked(url), without_password(url)):
        assert SECRET not in shown
        assert "host" in shown
        assert "base" in shown
    assert ("***" in masked(url)) == (":" in url.split("//")[1].split("@", maxsplit=1)[0])
    assert "***" not in without_password(url)
    assert without_password(without_password(url)) == without_password(url)


def test_a_url_without_a_password_stays_as_it_is() -> None:
    for url in ("postgresql://user@host/base", "sqlite:////tmp/study.db"):
        assert masked(url) == without_password(url) == absolute_url(url) == url


def test_a_relative_sqlite_path_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_url("sqlite:///study.db") == sqlite_url(tmp_path / "study.db")


def test_sqlite_is_made_in_write_ahead_mode_and_stays_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    storage = open_storage(sqlite_url(path))
    optuna.create_study(storage=storage, study_name="one")
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert other.execute("SELECT study_name FROM studies").fetchall() == [("one",)]
    with storage.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
    storage.engine.dispose()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:////nowhere/at/all/study.db", "No such file or directory; see that its folder"),
        ("foo://host/base", "'foo' is not a known database; write a URL such as sqlite:///"),
        ("sqlite:///:memory:", "name a file"),
        ("sqlite://", "name a file"),
        ("no url", "the storage is no URL"),
        ("nobase://host/x", "can't be opened"),
        (f"mysql+pymysql://user:{SECRET}@localhost:1/base", "can't be opened"),
    ],
)
def test_what_cannot_be_opened_is_one_line_without_the_password(url: str, message: str) -> None:
    with pytest.raises(RunError, match=message) as caught:
        open_storage(url)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    path.write_text("not a database, but long enough to be looked at as one")
    with pytest.raises(RunError, match="file is not a database"):
        open_storage(sqlite_url(path))


def test_reading_creates_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with pytest.raises(RunError, match="there is no such file"):
        open_storage(sqlite_url(path), reading=True)
    path.touch()
    with pytest.raises(RunError, match=r"can't be opened: no such table"):
        open_storage(sqlite_url(path), reading=True)
    assert path.stat().st_size == 0


@pytest.mark.parametrize("name", ["run", "my run, 100 %"])
def test_a_storage_where_nobody_can_write_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    path = folder / "study.db"
    storage = open_storage(sqlite_url(path))
    optuna.create_study(storage=storage, study_name="one")
    storage.engine.dispose()
    folder.chmod(0o500)
    monkeypatch.setattr("dse.search.sqlite_files._is_writable", lambda _: False)  # root may always
    try:
        reader = open_storage(sqlite_url(path), reading=True)
        assert optuna.get_all_study_names(reader) == ["one"]
        reader.engine.dispose()
    finally:
        folder.chmod(0o700)
    assert [entry.name for entry in folder.iterdir()] == ["study.db"]


def test_a_proxy_that_is_away_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grpc")
    monkeypatch.setattr("dse.search.storage.PROXY_SECONDS", 0.1)
    with pytest.raises(RunError, match=r"^storage grpc://127.0.0.1:1 can't be opened: it didn't "):
        open_storage("grpc://127.0.0.1:1")
