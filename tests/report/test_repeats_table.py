"""The table of what was scored with several seeds at short."""

from dataclasses import replace

from dse.report.render import to_markdown
from dse.report.repeats_table import repeats_note, repeats_table
from dse.results.candidate_records import RepeatRecord
from dse.results.records import RunRecords
from support.runs import make_records


def with_repeats(*accuracies: tuple[float, ...]) -> RunRecords:
    made = make_records(trials=12, finals=2)
    found = [
        RepeatRecord(
            label=f"trial {one.number}",
            trial=one.number,
            candidate=one.candidate,
            peak_bytes=one.peak_bytes,
            accuracies=values,
        )
        for one, values in zip(made.complete, accuracies, strict=False)
    ]
    return replace(made, repeats=tuple(found))


def test_every_seed_is_shown_with_the_mean_and_whether_it_was_trained_in_full() -> None:
    records = with_repeats((0.9, 0.8), (0.7, 0.71, 0.72))
    table = repeats_table(records)
    assert table is not None
    text = to_markdown(table)
    assert "90.0, 80.0 | 85.0 ± 7.1" in text
    assert "70.0, 71.0, 72.0 | 71.0 ± 1.0" in text
    full = {one.candidate.digest for one in records.finals}
    for row, one in zip(table.rows, records.repeats, strict=True):
        assert (row["in_full"] == "true") is (one.candidate.digest in full)
        assert row["short_accuracy_mean"] == one.accuracy


def test_the_note_says_how_much_one_seed_varies() -> None:
    assert "from seed to seed by 4.4 points" in repeats_note(
        with_repeats((0.9, 0.8), (0.7, 0.74, 0.72))
    )


def test_without_repeats_there_is_no_table() -> None:
    assert repeats_table(make_records(trials=5, finals=1)) is None
