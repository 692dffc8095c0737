"""Within each budget: the search's best finalist beside the strongest baseline, both in full."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dse.results.candidate_records import FinalRecord
from dse.results.records import RunRecords
from dse.results.seeds import difference_interval
from dse.results.ties import tied


@dataclass(frozen=True, kw_only=True)
class WithinBudget:
    """What a search gives within a budget, beyond methods that need none.

    Both sides are chosen on the selection part and compared on the validation part.

    Attributes:
        budget_bytes: The budget.
        own: The search's best finalist within it.
        rival: The best of the baselines within it that were fine-tuned in full.
    """

    budget_bytes: int
    own: FinalRecord
    rival: FinalRecord

    @property
    def difference(self) -> float:
        """Mean validation accuracy of the finalist minus that of the baseline."""
        return self.own.validation_accuracy - self.rival.validation_accuracy

    @property
    def interval(self) -> tuple[float, float] | None:
        """Welch's 95 % interval of the difference. None if the seeds allow none."""
        return difference_interval(self.own.validation_accuracies, self.rival.validation_accuracies)

    @property
    def differs(self) -> bool | None:
        """Whether Welch's test (5 %) finds a difference. None if the seeds allow none."""
        found = tied(self.own, self.rival)
        return None if found is None else not found


def within_budgets(records: RunRecords) -> tuple[WithinBudget, ...]:
    """Compare the search with its baselines within each budget, smallest first.

    Budgets within which only one side was fine-tuned in full are left out.
    """
    return tuple(_compared(records))


def _compared(records: RunRecords) -> Iterator[WithinBudget]:
    unpruned = records.unpruned
    known = [
        one
        for one in records.finals
        if unpruned is None or one.candidate.digest != unpruned.candidate.digest
    ]
    for budget in records.study.search.budget_bytes:
        within = [one for one in known if one.peak_bytes <= budget]
        own = _best(one for one in within if one.trial is not None)
        rival = _best(one for one in within if one.trial is None)
        if own is not None and rival is not None:
            yield WithinBudget(budget_bytes=budget, own=own, rival=rival)


def _best(finals: Iterable[FinalRecord]) -> FinalRecord | None:
    return max(finals, key=lambda one: (one.accuracy, -one.peak_bytes), default=None)
