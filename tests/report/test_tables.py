"""What the tables hold."""

import csv
import io
import json

import pytest

from dse.candidate import Candidate
from dse.report.render import Table, to_csv, to_latex, to_markdown
from dse.report.selection import front_trials
from dse.report.tables import baselines_table, finalists_table, front_table, trials_table
from dse.report.wording import finalists_note, short_and_full
from support.runs import MIB, make_records, make_study


def read(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(table))))


def test_every_trial_is_there_with_everything() -> None:
    records = make_records()
    rows = read(trials_table(records))
    assert len(rows) == len(records.trials)
    for row, trial in zip(rows, records.trials, strict=True):
        assert row["state"] == trial.state
        assert int(row["peak_bytes"]) == trial.peak_bytes
        assert Candidate.from_json(row["candidate"]) == trial.candidate
        assert row["accuracy"] == ("" if trial.accuracy is None else str(trial.accuracy))
        for name, value in trial.params.items():
            assert float(row[f"param.{name}"]) == value
    members = {int(row["number"]) for row in rows if row["on_front"] == "true"}
    assert members == {trial.number for trial in front_trials(records)}


def test_the_front_goes_by_memory_and_ends_with_the_unpruned_network() -> None:
    records = make_records()
    picked = records.finals[1]
    table = front_table(records, picked=picked.candidate)
    rows = read(table)
    sizes = [int(row["peak_bytes"]) for row in rows]
    assert sizes == sorted(sizes)
    assert rows[-1]["label"] == "unpruned"
    assert [row["label"] for row in rows if "picked" in row["notes"]] == [picked.label]
    assert sum("knee" in row["notes"] for row in rows) == 1
    chosen = next(row for row in rows if "picked" in row["notes"])
    assert float(chosen["full_validation_accuracy_mean"]) == picked.validation_accuracy
    assert float(chosen["full_accuracy_std"]) == picked.spread
    assert chosen["full_seeds"] == "3"
    for row in rows:
        fits = row["fits_budget_bytes"]
        expected = [budget for budget in (24 * MIB, 48 * MIB) if int(row["peak_bytes"]) <= budget]
        assert fits == (str(expected[0]) if expected else "")


def test_people_read_units_means_and_spreads() -> None:
    records = make_records()
    text = to_markdown(front_table(records, picked=None))
    final = records.finals[0]
    mean, spread = 100 * final.validation_accuracy, 100 * final.validation_spread
    assert f"{mean:.1f} ± {spread:.1f}" in text
    assert "≤ 24 MiB" in text
    assert "| unpruned | 64.0 | 100.0 | 100.0 |" in text
    assert r"$\pm$" in to_latex(front_table(records, picked=None))


def test_one_seed_has_no_spread_and_no_verdict() -> None:
    records = make_records(seeds=1)
    table = finalists_table(records)
    text = to_markdown(table)
    assert "±" not in text
    assert "Tied" not in text
    assert {row["tied_with"] for row in read(table)} == {"not tested"}
    assert {row["full_validation_accuracy_std"] for row in read(table)} == {""}
    note = finalists_note(records)
    assert "A test of which of them differ needs at least two seeds." in note
    assert "Tied" not in note
    assert "1 seed" in note


def test_several_seeds_have_a_verdict_and_say_how_many_they_are() -> None:
    records = make_records(seeds=3, images={"a": 30, "b": 12})
    assert "Tied with" in to_markdown(finalists_table(records))
    note = finalists_note(records)
    assert "Welch's t-test over the seeds" in note
    assert "over 3 seeds" in note
    assert "of 42 images" in note


@pytest.mark.parametrize(
    ("metric", "title"),
    [("accuracy", "Acc."), ("balanced-accuracy", "Bal. acc."), ("macro-f1", "Macro F1")],
)
def test_every_table_names_the_metric(metric: str, title: str) -> None:
    study = make_study()
    search = study.search.model_copy(update={"metric": metric})
    records = make_records(study=study.model_copy(update={"search": search}))
    for table in (
        front_table(records, picked=None),
        baselines_table(records),
    ):
        assert f"{title}, short (%) | {title}, full (%)" in to_markdown(table)
    assert f"{title}, validation (%)" in to_markdown(finalists_table(records))


def test_short_and_full_figures_are_kept_apart_in_words() -> None:
    text = short_and_full(make_records(seeds=1))
    assert "Short: accuracy on the selection part after 1 epoch, one seed." in text
    assert "Full: accuracy on the validation part after 10 epochs, 1 seed." in text
    assert "compare figures within a column" in text


def test_finalists_are_set_against_the_unpruned_network() -> None:
    records = make_records()
    text = to_markdown(finalists_table(records))
    whole = records.finals[-1].validation_accuracy
    change = 100 * (records.finals[0].validation_accuracy - whole)
    assert change < 0
    assert f"\N{MINUS SIGN}{abs(change):.1f}" in text
    assert text.splitlines()[-1].split("|")[6].strip() == "0.0"
    rows = read(finalists_table(records))
    assert json.loads(rows[0]["full_accuracies"]) == list(records.finals[0].accuracies)


def test_baselines_are_listed_with_their_ratios() -> None:
    rows = read(baselines_table(make_records()))
    assert [row["ratio"] for row in rows] == ["0.0", "0.25", "0.5", "0.75", "0.9"]


@pytest.mark.parametrize("trials", [0, 1])
def test_tables_of_a_run_with_little_in_it(trials: int) -> None:
    records = make_records(
        trials=trials, baselines=False, finals=0, study=make_study(budgets=(MIB,))
    )
    for table in (
        front_table(records, picked=None),
        finalists_table(records),
        baselines_table(records),
    ):
        assert read(table) == []
        assert to_markdown(table).count("\n") == 2
        assert r"\bottomrule" in to_latex(table)
    assert len(read(trials_table(records))) == trials


def test_a_run_without_groups_keeps_no_share() -> None:
    records = make_records(groups=(), study=make_study(budgets=(64 * MIB,)))
    assert " – " in to_markdown(front_table(records, picked=None))  # noqa: RUF001 -- as written
