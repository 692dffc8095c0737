"""Which finalists the seeds can't tell apart, where they can say anything."""

from collections.abc import Sequence

from dse.results.records import FinalRecord
from dse.results.seeds import FEWEST, differ


def tied(first: FinalRecord, second: FinalRecord) -> bool | None:
    """Say whether Welch's test (5 %) finds no difference of two validation figures.

    Returns:
        None where no test is possible; see `dse.results.seeds.differ`.
    """
    found = differ(first.validation_accuracies, second.validation_accuracies)
    return None if found is None else not found


def ties_of(final: FinalRecord, finals: Sequence[FinalRecord]) -> tuple[str, ...] | None:
    """Return the labels of the other finalists that one is tied with.

    Returns:
        None where it can be tested against none of the others.
    """
    verdicts = [(other.label, tied(final, other)) for other in finals if other is not final]
    if all(verdict is None for _, verdict in verdicts):
        return None
    return tuple(label for label, verdict in verdicts if verdict)


def can_test(finals: Sequence[FinalRecord]) -> bool:
    """Say whether any two finalists have the seeds that a test needs."""
    return sum(len(final.validation_accuracies) >= FEWEST for final in finals) > 1
