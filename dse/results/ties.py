"""Find finalists whose difference on the validation part is not significant over their seeds."""

from collections.abc import Sequence

from dse.results.candidate_records import FinalRecord
from dse.results.seeds import FEWEST, differ


def tied(first: FinalRecord, second: FinalRecord) -> bool | None:
    """Whether Welch's test (5 %) finds no difference between two validation accuracies.

    Returns:
        None if no test is possible (see `dse.results.seeds.differ`).
    """
    found = differ(first.validation_accuracies, second.validation_accuracies)
    return None if found is None else not found


def ties_of(final: FinalRecord, finals: Sequence[FinalRecord]) -> tuple[str, ...] | None:
    """Return the labels of the other finalists that a finalist is tied with.

    Returns:
        None if no test against any other finalist is possible.
    """
    verdicts = [(other.label, tied(final, other)) for other in finals if other is not final]
    if all(verdict is None for _, verdict in verdicts):
        return None
    return tuple(label for label, verdict in verdicts if verdict)


def can_test(finals: Sequence[FinalRecord]) -> bool:
    """Whether at least two finalists have enough seeds for a test."""
    return sum(len(final.validation_accuracies) >= FEWEST for final in finals) > 1
