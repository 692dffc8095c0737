"""The sentences on the search's finalists beside the strongest baselines."""

from dataclasses import replace

import pytest

from dse.measures import Measure
from dse.report.budget_wording import _note, budget_notes
from dse.results.candidate_records import FinalRecord
from dse.results.within_budgets import WithinBudget
from support.runs import make_records

PERCENT = Measure(title="accuracy", short_title="Acc.")
ERROR = Measure(title="error", short_title="Err.", percent=False, worthless=4.0, ideal=0.0)


def final(label: str, *validation: float) -> FinalRecord:
    like = make_records(trials=3, finals=1).finals[0]
    return replace(like, label=label, accuracies=validation, validation_accuracies=validation)


def note(own: tuple[float, ...], rival: tuple[float, ...], measure: Measure = PERCENT) -> str:
    found = WithinBudget(
        budget_bytes=12 * 2**20, own=final("trial 3", *own), rival=final("uniform 0.50", *rival)
    )
    return _note(found, measure)


def test_a_significant_lead_is_written_with_its_interval() -> None:
    text = note((0.90, 0.91, 0.92), (0.80, 0.81, 0.82))
    assert text == (
        "Within 12 MiB, trial 3 has 91.0 ± 1.0 %, and the strongest baseline trained in full, "
        "uniform 0.50, 81.0 ± 1.0 %: better by 10.0 points (7.7 to 12.3, Welch's 95 % interval), "
        "significant."
    )


def test_a_lag_is_written_as_one_with_the_ends_of_its_interval_turned() -> None:
    text = note((0.80, 0.81, 0.82), (0.81, 0.83, 0.82))
    assert (
        "worse by 1.0 points (\N{MINUS SIGN}1.3 to 3.3, Welch's 95 % interval), not significant."
        in text
    )


def test_one_seed_gives_no_verdict() -> None:
    assert note((0.9,), (0.8,)).endswith(
        "80.0 %: better by 10.0 points; no test is possible with these seeds."
    )


def test_errors_are_written_in_their_own_unit() -> None:
    text = note((0.9, 0.91), (0.8, 0.81), ERROR)
    assert "trial 3 has 0.380 ± 0.028, " in text
    assert "better by 0.400 (" in text
    assert "%" not in text.replace("95 % interval", "")


@pytest.mark.parametrize("finals", [0, 3])
def test_without_baselines_in_full_there_is_nothing_to_write(finals: int) -> None:
    assert budget_notes(make_records(trials=12, finals=finals)) == []
