import csv
import io

from dse.metrics import recalls
from dse.report.recalls_table import MOST_SHOWN, missed_warnings, recalls_table
from dse.report.render import to_csv, to_latex, to_markdown
from support.runs import make_records

RARE = {"common": 190, "rare": 60, "rarer": 4}


def test_classes_go_by_the_picked_networks_recall_worst_first() -> None:
    records = make_records(images=RARE, finals=2)
    final = records.finals[0]
    table = recalls_table(records, picked=final.candidate)
    assert table is not None
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert rows[0]["class"] == "rarer"
    assert {row["class"]: int(row["validation_images"]) for row in rows} == RARE
    figures = [float(row[f"recall {final.label}"]) for row in rows]
    assert figures == sorted(figures)
    expected = dict(zip(RARE, recalls(final.validation_correct, (190, 60, 4)), strict=True))
    for row in rows:
        assert float(row[f"recall {final.label}"]) == expected[row["class"]]
    shown = to_markdown(table).splitlines()
    assert shown[0].startswith(f"| Class | Images | unpruned (%) | {final.label} (%) |")
    assert shown[2].startswith("| rarer | 4 | 0.0 | 0.0 |")


def test_of_many_classes_people_see_the_worst_and_machines_all() -> None:
    many = {f"class {number}": 10 + number for number in range(100)}
    records = make_records(images=many)
    table = recalls_table(records, picked=None)
    assert table is not None
    assert len(to_csv(table).splitlines()) == 1 + 100
    assert len(to_markdown(table).splitlines()) == 2 + MOST_SHOWN
    assert "class 99" in to_markdown(table).splitlines()[2]
    assert to_latex(table).count("class ") == MOST_SHOWN
    assert len(table.columns) <= 7


def test_networks_that_never_get_a_class_right_are_named() -> None:
    records = make_records(images=RARE, finals=1)
    lines = missed_warnings(records)
    assert len(lines) == len(records.finals)
    assert all(
        "none of the validation images of 1 of 3 classes right: 'rarer' (4)" in line
        for line in lines
    )


def test_runs_that_noted_no_recalls_have_no_table() -> None:
    assert recalls_table(make_records(), picked=None) is None
    assert recalls_table(make_records(images=RARE, finals=0), picked=None) is None
    assert missed_warnings(make_records()) == []
