"""Which finalists can't be told apart."""

import pytest

from dse.candidate import Candidate
from dse.results.records import FinalRecord
from dse.results.ties import tied, ties_of


def final(label: str, *accuracies: float) -> FinalRecord:
    return FinalRecord(
        label=label,
        trial=None,
        candidate=Candidate(channels={label: 1}),
        peak_bytes=1,
        accuracies=accuracies,
        validation_accuracies=accuracies,
        step_seconds=0.1,
    )


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ((0.90, 0.91, 0.92), (0.80, 0.81, 0.82), False),
        ((0.90, 0.91, 0.92), (0.89, 0.91, 0.915), True),
        ((0.90,), (0.10, 0.11), True),  # one seed tells nothing
        ((0.90, 0.90), (0.90, 0.90), True),
        ((0.90, 0.90), (0.80, 0.80), False),
        ((0.90, 0.90), (0.89, 0.92), True),  # one side without spread
        ((0.90, 0.90, 0.90), (0.5, 0.51, 0.52), False),
    ],
)
def test_means_within_the_seeds_scatter_are_tied(
    first: tuple[float, ...], second: tuple[float, ...], *, same: bool
) -> None:
    assert tied(final("a", *first), final("b", *second)) is same
    assert tied(final("b", *second), final("a", *first)) is same


def test_labels_of_all_others_it_is_tied_with() -> None:
    finals = [final("a", 0.9, 0.91), final("b", 0.9, 0.912), final("c", 0.5, 0.51)]
    assert ties_of(finals[0], finals) == ("b",)
    assert ties_of(finals[2], finals) == ()
