import json
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError

from dse.cli import main
from dse.errors import RunError
from dse.search.journal_repair import repair_journal
from dse.search.storage import open_storage


def journal(path: Path) -> str:
    url = f"journal:///{path}"
    study = optuna.create_study(study_name="one", storage=open_storage(url))
    for _ in range(3):
        study.tell(study.ask(), 1.0)
    return url


def test_a_torn_line_is_taken_out_after_a_backup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "study.log"
    url = journal(path)
    whole = path.read_bytes()
    torn = whole + whole.splitlines()[-1][:20] + whole.splitlines(keepends=True)[-1]
    torn += b'{"op_co'
    path.write_bytes(torn)  # torn, appended to afterwards, and torn again
    with pytest.raises(RunError, match="dse doctor may repair it"):
        open_storage(url)
    assert main(["doctor", url, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["dropped"] == 2
    assert Path(printed["backup"]).read_bytes() == torn
    assert path.read_bytes() == whole
    assert len(optuna.load_study(study_name="one", storage=open_storage(url)).trials) == 3


def test_a_whole_journal_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    journal(path)
    before = path.read_bytes()
    assert repair_journal(path).backup is None
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["study.log"]


def test_another_file_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("not a journal\n")
    with pytest.raises(RunError, match="it is another file"):
        repair_journal(other)
    assert other.read_text() == "not a journal\n"
    with pytest.raises(RunError, match="there is no such journal"):
        repair_journal(tmp_path / "none")


def test_a_torn_end_is_refused_before_anything_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    url = journal(path)
    torn = path.read_bytes() + b'{"op_code": 8, "worker_id": "half'
    path.write_bytes(torn)
    with pytest.raises(RunError, match="its last line is torn; dse doctor may repair it"):
        open_storage(url)
    assert path.read_bytes() == torn
    assert (
        len(optuna.load_study(study_name="one", storage=open_storage(url, reading=True)).trials)
        == 3
    )
    assert repair_journal(path).dropped == 1
    open_storage(url)


def test_a_line_that_is_torn_meanwhile_names_the_repair(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    study = optuna.load_study(study_name="one", storage=open_storage(journal(path)))
    whole = path.read_bytes().splitlines(keepends=True)[-1]
    with path.open("ab") as file:
        file.write(b'{"op_co' + whole + whole)
    with pytest.raises(StorageInternalError, match="dse doctor may repair it"):
        study.get_trials()
