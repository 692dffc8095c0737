"""Which finalists the seeds can't distinguish."""

from dse.candidate import Candidate
from dse.results.candidate_records import FinalRecord
from dse.results.ties import can_test, tied, ties_of


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


def test_tied_are_those_that_the_seeds_cannot_distinguish() -> None:
    assert tied(final("a", 0.90, 0.91, 0.92), final("b", 0.89, 0.91, 0.915)) is True
    assert tied(final("a", 0.90, 0.91, 0.92), final("b", 0.80, 0.81, 0.82)) is False
    assert tied(final("a", 0.90), final("b", 0.80, 0.81)) is None


def test_labels_of_all_others_it_is_tied_with() -> None:
    finals = [final("a", 0.9, 0.91), final("b", 0.9, 0.912), final("c", 0.5, 0.51)]
    assert ties_of(finals[0], finals) == ("b",)
    assert ties_of(finals[2], finals) == ()
    assert can_test(finals)


def test_one_seed_gives_no_verdict() -> None:
    finals = [final("a", 0.9), final("b", 0.9), final("c", 0.5, 0.51)]
    assert [ties_of(one, finals) for one in finals] == [None, None, None]
    assert not can_test(finals)
    assert ties_of(finals[2], finals[2:]) is None
