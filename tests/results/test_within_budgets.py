"""The search's best finalist beside the strongest baseline, within each budget."""

from dataclasses import replace

import pytest
from scipy.stats import ttest_ind

from dse.results.candidate_records import FinalRecord
from dse.results.records import RunRecords
from dse.results.within_budgets import within_budgets
from support.runs import make_records


def final(
    like: FinalRecord, label: str, *, peak: int, validation: tuple[float, ...]
) -> FinalRecord:
    return replace(
        like,
        label=label,
        trial=None if label.startswith("uniform") else 1,
        candidate=like.candidate.model_copy(update={"channels": {"a": peak % 1000 + 1}}),
        peak_bytes=peak,
        accuracies=tuple(one + 0.01 for one in validation),
        validation_accuracies=validation,
    )


@pytest.fixture(scope="module")
def records() -> RunRecords:
    made = make_records(trials=10, finals=2)
    small, large = made.study.search.budget_bytes
    like = made.finals[0]
    unpruned = next(one for one in made.finals if one.label == "unpruned")
    finals = (
        final(like, "trial 1", peak=small - 7, validation=(0.80, 0.82, 0.81)),
        final(like, "trial 2", peak=large - 6, validation=(0.70, 0.71, 0.72)),
        final(like, "uniform 0.50", peak=small - 5, validation=(0.70, 0.72, 0.68)),
        final(like, "uniform 0.25", peak=large - 4, validation=(0.79, 0.85, 0.80)),
        unpruned,
    )
    return replace(made, finals=finals)


def test_the_best_of_both_sides_are_compared_within_each_budget(records: RunRecords) -> None:
    small, large = within_budgets(records)
    assert (small.own.label, small.rival.label) == ("trial 1", "uniform 0.50")
    assert (large.own.label, large.rival.label) == ("trial 1", "uniform 0.25")
    assert small.budget_bytes < large.budget_bytes


def test_differences_and_verdicts_are_those_of_welch(records: RunRecords) -> None:
    for found in within_budgets(records):
        test = ttest_ind(
            found.own.validation_accuracies, found.rival.validation_accuracies, equal_var=False
        )
        low, high = test.confidence_interval(0.95)
        assert found.interval == pytest.approx((low, high))
        assert found.differs is bool(test.pvalue < 0.05)
        assert low < found.difference < high
    assert [found.differs for found in within_budgets(records)] == [True, False]


def test_a_budget_of_one_side_is_left_out(records: RunRecords) -> None:
    own = tuple(one for one in records.finals if one.trial is not None)
    assert within_budgets(replace(records, finals=own)) == ()
    only_large = tuple(one for one in records.finals if one.label != "uniform 0.50")
    (found,) = within_budgets(replace(records, finals=only_large))
    assert found.rival.label == "uniform 0.25"


def test_the_unpruned_network_is_no_baseline_of_a_budget_that_it_fits() -> None:
    made = make_records(trials=10, finals=3)
    roomy = made.study.search.model_copy(update={"budgets": (10 * made.unpruned_peak_bytes,)})
    study = made.study.model_copy(update={"search": roomy})
    assert within_budgets(replace(made, study=study)) == ()


def test_one_seed_gives_no_verdict(records: RunRecords) -> None:
    single = tuple(
        replace(
            one,
            accuracies=one.accuracies[:1],
            validation_accuracies=one.validation_accuracies[:1],
            seeds=one.seeds[:1],
            validation_correct=one.validation_correct[:1],
        )
        for one in records.finals
    )
    for found in within_budgets(replace(records, finals=single)):
        assert found.interval is None
        assert found.differs is None
