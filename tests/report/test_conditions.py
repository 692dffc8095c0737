"""The table of a run's conditions."""

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from dse.data.summary import DataSummary, PartSummary
from dse.report.conditions import NOT_RECORDED, conditions, conditions_markdown
from dse.report.page import page
from dse.results.records import RunRecords
from dse.results.sessions import SessionRecord
from support.runs import make_records, make_study

DATA = DataSummary(
    name="folder",
    labels=("a", "b"),
    classes=2,
    parts=(
        PartSummary(name="train", origin="Training/", per_label=(900, 300)),
        PartSummary(name="validation", origin="Testing/", per_label=(7, 8)),
    ),
    pixel_values="16-bit grey, divided by 257",
    augmentation="flip",
)


def session(hour: int, *, killed: bool = False) -> SessionRecord:
    return SessionRecord(
        started=f"2026-03-01T{hour:02}:00:00+00:00",
        ended=None if killed else f"2026-03-01T{hour:02}:01:30+00:00",
        wall_seconds=None if killed else 90.0,
        processor="Some CPU @ 2.1GHz",
        cores=4,
        threads=3,
        device="cpu",
    )


def run_of(*sessions: SessionRecord, root: str | None = None) -> RunRecords:
    study = make_study()
    data = study.data.model_copy(update={"root": None if root is None else Path(root)})
    study = study.model_copy(update={"data": data, "source_dir": Path("/projects/studies")})
    versions = {"dse": "1.2", "torch": "2.9", "optuna": "4", "python": "3.11", "torchvision": "0.2"}
    records = make_records(trials=5, finals=0, study=study)
    return replace(records, data=DATA, sessions=sessions, versions=versions)


def test_data_software_machine_and_dates_are_listed() -> None:
    found = dict(conditions(run_of(session(9))))
    assert found["Images"] == "train 1,200 (Training/), validation 15 (Testing/)"
    assert found["Outputs"] == "5 classes"
    assert found["Pixel values"] == "16-bit grey, divided by 257"
    assert found["Augmentation"] == "flip"
    assert found["Versions"] == "dse 1.2, python 3.11, torch 2.9, torchvision 0.2, optuna 4"
    assert found["Date"] == "2026-03-01T09:00:00+00:00 to 2026-03-01T09:01:30+00:00"
    assert found["Machine"] == "Some CPU @ 2.1GHz, 4 cores"
    assert found["Threads"] == "3"
    assert found["Wall time"].endswith(" in 1 session")
    assert "study seed 0" in found["Seeds"]


def test_a_killed_session_has_no_end_and_no_time() -> None:
    one = dict(conditions(run_of(session(9, killed=True))))
    assert one["Date"].endswith("to no recorded end")
    assert one["Wall time"].startswith("1 session without a recorded end")
    both = dict(conditions(run_of(session(8), session(9, killed=True), session(10))))
    assert both["Date"].startswith("3 sessions, the first 2026-03-01T08")
    assert re.search(r" in 2 sessions, and 1 session without a recorded end", both["Wall time"])
    assert both["Machine"].count("Some CPU") == 1


def test_what_an_older_run_did_not_store_is_not_recorded() -> None:
    found = dict(conditions(make_records(trials=5, finals=0)))
    missing = {name for name, text in found.items() if text == NOT_RECORDED}
    assert missing == {
        "Images",
        "Pixel values",
        "Versions",
        "Date",
        "Machine",
        "Threads",
        "Wall time",
    }


@pytest.mark.parametrize(
    ("root", "shown"),
    [
        ("/projects/studies/images", "images"),
        ("/projects/images", "../images"),
        ("/elsewhere/images", "/elsewhere/images"),
        (str(Path.home() / "images"), "~/images"),
        (None, "none: the study names no folder"),
    ],
)
def test_the_data_path_names_no_user(root: str | None, shown: str) -> None:
    assert dict(conditions(run_of(root=root)))["Data path"] == shown


def test_names_of_folders_and_processors_are_escaped() -> None:
    hostile = "<b>x</b>|`y` ![i](x)"
    records = run_of(session(9).model_copy(update={"processor": hostile}), root=f"/d/{hostile}")
    html = MarkdownIt("commonmark").enable("table").render("\n".join(conditions_markdown(records)))
    assert set(re.findall(r"<(\w+)", html)) <= {"table", "thead", "tbody", "tr", "th", "td"}
    assert unescape(html).count(hostile) == 2


def test_the_page_holds_the_table() -> None:
    text = page(run_of(session(9)), pictures=[], tables=[])
    assert "## Conditions" in text
    assert "Some CPU" in text
