import errno
import os
import stat
from pathlib import Path

import pytest

from dse.trust.seal import STATE_VARIABLE, is_sealed, make_seal, state_folder


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "state"
    monkeypatch.setenv(STATE_VARIABLE, str(place))
    return place


def test_a_seal_holds_for_its_content_alone() -> None:
    seal = make_seal({"identity": "a", "network": {"name": "x:y"}})
    assert is_sealed({"network": {"name": "x:y"}, "identity": "a"}, seal)
    assert not is_sealed({"identity": "b", "network": {"name": "x:y"}}, seal)
    assert not is_sealed({"identity": "a", "network": {"name": "x:z"}}, seal)
    assert not is_sealed({"identity": "a"}, None)
    assert not is_sealed({"identity": "a"}, "")
    assert not is_sealed({"identity": "a"}, "é\ud800")  # a stranger's file may hold any text


def test_another_machine_neither_makes_nor_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal = make_seal({"a": 1})
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "other"))
    assert not is_sealed({"a": 1}, seal)
    assert not (tmp_path / "other").exists()  # asking creates nothing
    assert make_seal({"a": 1}) != seal


def test_the_secret_is_its_owners_alone(state: Path) -> None:
    make_seal({})
    assert stat.S_IMODE((state / "seal.key").stat().st_mode) == 0o600
    assert [path.name for path in state.iterdir()] == ["seal.key"]


def test_a_file_system_without_hard_links_keeps_a_secret_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_paths: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", refuse)
    seal = make_seal({"a": 1})
    assert is_sealed({"a": 1}, seal)
    assert make_seal({"a": 1}) == seal


def test_without_a_place_for_the_secret_nothing_is_sealed(state: Path) -> None:
    state.write_text("a file", encoding="utf-8")
    assert make_seal({}) is None
    assert not is_sealed({}, "0" * 64)


def test_a_damaged_secret_seals_nothing(state: Path) -> None:
    seal = make_seal({})
    (state / "seal.key").write_bytes(b"")
    assert make_seal({}) is None
    assert not is_sealed({}, seal)


def test_the_state_lies_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STATE_VARIABLE, "~/kept")
    assert state_folder() == Path.home() / "kept"
    monkeypatch.delenv(STATE_VARIABLE)
    monkeypatch.setenv("XDG_STATE_HOME", "/var/own")
    assert state_folder() == Path("/var/own/dse")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert state_folder() == Path.home() / ".local/state/dse"
