"""Candidates that need no search: one ratio for all, ratios at random, the paper's rule."""

from collections.abc import Sequence

import numpy as np

from dse.candidate import Candidate
from dse.errors import InfeasibleError
from dse.memory.model import MemoryModel
from dse.methods.greedy import Trajectory
from dse.sampling.search_space import RATIO, SearchSpace


def uniform_label(ratio: float) -> str:
    """What pictures and tables call uniform pruning by a ratio."""
    return f"uniform {ratio:.2f}" if round(ratio, 2) == ratio else f"uniform {ratio:g}"


def random_candidates(space: SearchSpace, *, draws: int, seed: int) -> tuple[Candidate, ...]:
    """Draw a ratio for each free group, evenly over its range."""
    generator = np.random.default_rng(seed)
    return tuple(
        space.candidate(
            {
                RATIO + choice.name: float(generator.uniform(choice.low, choice.high))
                for choice in space.free
            }
        )
        for _ in range(draws)
    )


def greedy_within(
    trajectory: Trajectory, model: MemoryModel, budgets: Sequence[int]
) -> dict[int, Candidate]:
    """The rule's first network within each budget that it reaches and that takes pruning.

    Args:
        trajectory: of the rule on this model.
        model: gives the groups their names.
        budgets: bytes.
    """
    found = {}
    for budget in budgets:
        try:
            point = trajectory.first_within(budget)
        except InfeasibleError:
            continue  # the rule's curve ends above this budget, and shows it
        if point > 0:
            kept = trajectory.channels[point].tolist()
            found[budget] = Candidate.from_kept(model.groups, kept)
    return found
