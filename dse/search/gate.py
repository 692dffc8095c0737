"""The gate: candidates that can't fit, or were evaluated before, are never trained."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from optuna.trial import FrozenTrial

from dse.candidate import Candidate
from dse.errors import InfeasibleError
from dse.results.trials import first_with
from dse.sampling.search_space import SearchSpace
from dse.search.costs import Costs
from dse.units import distinct_sizes, format_size

CONSTRAINT = "peak_bytes"


@dataclass(frozen=True)
class Verdict:
    """The gate's decision about a candidate.

    Attributes:
        state: `train` if the candidate may be trained, or why it may not.
        duplicate_of: number of the trial that evaluated the same candidate.
    """

    state: Literal["train", "infeasible", "duplicate"]
    duplicate_of: int | None = None


@dataclass(frozen=True)
class Gate:
    """Lets a candidate through if it fits the largest budget and is new.

    Attributes:
        limit_bytes: the largest budget.
        active: whether the gate filters at all; if False, every candidate is let through.
    """

    limit_bytes: int
    active: bool = True

    def constraint(self, peak_bytes: int) -> float:
        """Return the bytes by which a peak exceeds the limit; zero or less if it fits."""
        return float(peak_bytes - self.limit_bytes)

    def fits(self, peak_bytes: int) -> bool:
        """Whether a peak is within the limit."""
        return self.constraint(peak_bytes) <= 0

    def judge(
        self, candidate: Candidate, *, peak_bytes: int, trials: Sequence[FrozenTrial]
    ) -> Verdict:
        """Decide whether a candidate is trained.

        Args:
            candidate: the candidate to decide about.
            peak_bytes: its predicted peak.
            trials: all trials of the study so far.
        """
        if not self.active:
            return Verdict("train")
        if peak_bytes > self.limit_bytes:
            return Verdict("infeasible")
        if (known := first_with(trials, candidate)) is not None:
            return Verdict("duplicate", duplicate_of=known.number)
        return Verdict("train")

    def check_possible(self, space: SearchSpace, costs: Costs) -> int:
        """Return the peak of the smallest network of the space under its leanest recipe.

        Raises:
            InfeasibleError: if that network exceeds the limit under every recipe.
        """
        channels = {"channels": space.smallest().channels}

        def least(recipes: Iterable[Candidate]) -> int:
            return min(costs.peak_bytes(one.model_copy(update=channels)) for one in recipes)

        smallest = least(space.lean_recipes)
        if smallest > self.limit_bytes:  # check every recipe before the study is refused
            smallest = least(space.recipes)
        if smallest > self.limit_bytes:
            raise InfeasibleError(
                f"search.budgets: the largest, {format_size(self.limit_bytes)} "
                f"({self.limit_bytes:,} bytes), is below the smallest network of the search space, "
                f"which needs {format_size(smallest)} ({smallest:,} bytes); raise the budget, "
                "widen space.ratio, or lower training.batch_size"
            )
        return smallest


def hopeless(budgets: Sequence[int], smallest_peak_bytes: int) -> str | None:
    """Return a warning about budgets that no network of the space meets; None if all can be met."""
    missed = [budget for budget in budgets if budget < smallest_peak_bytes]
    if not missed:
        return None
    *sizes, needed = distinct_sizes(*missed, smallest_peak_bytes)
    return (
        f"search.budgets: no network of the search space meets {', '.join(sizes)}: the smallest "
        f"needs {needed}"
    )
